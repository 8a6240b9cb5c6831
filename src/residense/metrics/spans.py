"""Entity-level F1 as a torchmetrics metric, whose integer states any number of processes sum.

Whether a span starts, continues or ends depends only on two neighboring tags. Tables made from the
label names answer that for each pair, so that a batch is scored without a loop over tokens.

Shapes: B batch, L length, K labels, T entity types; mask [B, L] is True at real tokens.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from residense.tags import legal_transitions, split_tag

Mode = Literal["conll", "strict"]
PREFIX = {"M": "I", "L": "E", "U": "S"}  # BMES and BILOU write IOBES in other letters


class SpanF1(Metric):
    """Precision, recall and F1 of typed spans; a span counts if its start, end and type are right.

    `conll` reads malformed sequences as conlleval does: a span starts wherever one can start.
    `strict` discards spans that violate the scheme. Both agree with the default and the strict mode
    of seqeval, also in returning 0 where there is nothing to find and nothing was found. Without a
    tag scheme (parts of speech), each token is a span of its tag and F1 is the accuracy.

    The state `confusion` [T+1, T+1] counts spans by gold type (row) and predicted type (column)
    where both have the same bounds; its last column counts gold spans that were missed, its last
    row predicted spans that do not exist.

    Args:
        labels: Names of the K tags, in the order of their ids.
        scheme: Tag scheme of the labels: IOB1, IOB2, IOBES, BILOU, BMES or none.
        mode: How malformed sequences are read.
    """

    full_state_update = False
    confusion: Tensor
    improper: Tensor
    sequences: Tensor
    correct: Tensor
    tokens: Tensor

    def __init__(self, labels: Sequence[str], scheme: str = "IOB2", mode: Mode = "conll"):
        super().__init__()
        tags = [("S", label) if scheme == "none" else _canonical(label) for label in labels]
        tags.append(("O", ""))  # the borders of a sentence
        self.types = sorted({kind for prefix, kind in tags if prefix != "O"})
        kinds = [self.types.index(t) if prefix != "O" else len(self.types) for prefix, t in tags]
        self.kind = torch.tensor(kinds)
        rule = _conll if mode == "conll" else STRICT.get(scheme, _strict_iobes)
        table = torch.tensor([[rule(a, b) for b in tags] for a in tags])  # [K+1, K+1, 3]
        self.starts, self.inside, self.ends = table.unbind(-1)
        self.legal = torch.from_numpy(legal_transitions([*labels, "O"], scheme).follow)
        size = len(self.types) + 1
        self.add_state("confusion", torch.zeros(size, size, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("improper", "sequences", "correct", "tokens"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, gold: Tensor, mask: Tensor) -> None:
        """Count the spans of tag ids `predicted` and `gold` [B, L] at real tokens."""
        for name in ("kind", "starts", "inside", "ends", "legal"):
            setattr(self, name, getattr(self, name).to(mask.device))
        predicted = self._frame(predicted, mask)
        gold = self._frame(gold, mask)
        began, found = self._spans(predicted)
        gold_began, expected = self._spans(gold)
        same = found & expected & (began == gold_began)
        kind = self.kind[predicted[:, :-1]]
        gold_kind = self.kind[gold[:, :-1]]
        none = len(self.types)
        size = none + 1
        cell = gold_kind * size + torch.where(same, kind, none)
        spurious = none * size + kind
        cells = torch.cat((cell[expected], spurious[found & ~same]))
        self.confusion += torch.bincount(cells, minlength=size * size).view(size, size)
        self.improper += (~self.legal[predicted[:, :-1], predicted[:, 1:]]).any(1).sum()
        self.sequences += mask.any(1).sum()
        self.correct += ((predicted == gold)[:, 1:-1] & mask).sum()
        self.tokens += mask.sum()

    def _frame(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Return tags with O before the first, after the last and at padding: [B, L+2]."""
        outside = len(self.kind) - 1
        return F.pad(tags.masked_fill(~mask, outside), (1, 1), value=outside)

    def _spans(self, tags: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the current span began, and whether one ends here: both [B, L+1]."""
        before = tags[:, :-1]
        after = tags[:, 1:]
        start = self.starts[before, after]
        inside = self.inside[before, after]
        # only IOB1 has tags that may start or continue: they continue if the tag before started
        start = start & ~(inside & F.pad(start[:, :-1], (1, 0)))
        inside = inside & ~start
        place = torch.arange(1, tags.shape[1], device=tags.device).expand_as(start)
        began = torch.where(start, place, 0).cummax(1).values
        broken = torch.where(inside, 0, place).cummax(1).values
        open_before = F.pad((began == broken)[:, :-1], (1, 0))
        began_before = F.pad(began[:, :-1], (1, 0))
        return began_before, open_before & ~inside & self.ends[before, after]

    def compute(self) -> dict[str, Tensor]:
        """Return the scores, from the states of all processes.

        Returns:
            Micro `precision`, `recall` and `f1`; `macro_f1`; `accuracy` of tags; `improper`, the
            fraction of predicted sequences that violate the scheme; `confusion`.
        """
        hits, found, expected = counts(self.confusion)
        f1 = _ratio(2 * hits, found + expected)
        present = found + expected > 0
        return {
            "precision": _ratio(hits.sum(), found.sum()),
            "recall": _ratio(hits.sum(), expected.sum()),
            "f1": _ratio(2 * hits.sum(), found.sum() + expected.sum()),
            "macro_f1": _ratio(f1[present].sum(), present.sum()),
            "accuracy": _ratio(self.correct, self.tokens),
            "improper": _ratio(self.improper, self.sequences),
            "confusion": self.confusion.clone(),
        }


def counts(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numbers of spans that are right, predicted and expected, by type: each [T]."""
    return confusion.diagonal()[:-1], confusion.sum(0)[:-1], confusion.sum(1)[:-1]


def per_type(types: Sequence[str], confusion: Tensor) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and `support`, the number of gold spans, of each type."""
    hits, found, expected = counts(confusion)
    columns = {
        "precision": _ratio(hits, found),
        "recall": _ratio(hits, expected),
        "f1": _ratio(2 * hits, found + expected),
        "support": expected,
    }
    return {
        kind: {name: column[i].item() for name, column in columns.items()}
        for i, kind in enumerate(types)
    }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole in float64, 0 where there is nothing."""
    return part.double() / whole.clamp(min=1)


Tag = tuple[str, str]
Rule = tuple[bool, bool, bool]


def _canonical(label: str) -> Tag:
    prefix, kind = split_tag(label)
    return PREFIX.get(prefix, prefix), kind


def _conll(before: Tag, after: Tag) -> Rule:
    """Return whether `after` starts and continues a span, and whether one ends before it."""
    (a, _), (b, _) = before, after
    start = b != "O" and (b in "BS" or a in "OES" or before[1] != after[1])
    return start, b != "O" and not start, a != "O" and (start or b == "O")


def _strict_iob1(before: Tag, after: Tag) -> Rule:
    (a, _), (b, _) = before, after
    same = before[1] == after[1]
    inside = b == "I" and a in "BI" and same
    start = (b == "I" and not (a == "I" and same)) or (b == "B" and a in "BI" and same)
    return start, inside, not (a == "B" and b == "B" and not same)


def _strict_iob2(before: Tag, after: Tag) -> Rule:
    inside = after[0] == "I" and before[0] in "BI" and before[1] == after[1]
    return after[0] == "B", inside, True


def _strict_iobes(before: Tag, after: Tag) -> Rule:
    inside = after[0] in "IE" and before[0] in "BI" and before[1] == after[1]
    return after[0] in "BS", inside, before[0] in "ES"


STRICT = {"IOB1": _strict_iob1, "IOB2": _strict_iob2, "BIO": _strict_iob2}
