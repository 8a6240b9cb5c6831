"""Entity-level F1 as a torchmetrics metric.

All states are integer sums, so that results are the same on any number of processes. Whether a tag
starts, continues or ends a span depends on two neighboring tags only. Each pair is looked up in a
table that is computed once from the labels, so a batch is scored without a loop over tokens.

Shapes: B batch, L length, K labels, T entity types; mask [B, L] is True at real tokens.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from residense.tags import legal_transitions, split_tag

Mode = Literal["conll", "strict"]
PREFIX = {"M": "I", "L": "E", "U": "S"}  # BMES and BILOU are IOBES with other letters


class SpanF1(Metric):
    """Precision, recall and F1 of typed spans; a span is correct if its bounds and type are.

    `conll` reads malformed sequences as conlleval does (a span starts wherever one can start);
    `strict` discards spans that violate the scheme. The modes agree with the default and strict
    modes of seqeval, including a score of 0 if there are neither gold nor predicted spans. Without
    a tag scheme, as for parts of speech, each token is a span and F1 equals accuracy.

    The main state is the matrix `confusion` [T+1, T+1], which counts spans by gold type (row) and
    predicted type (column). The last column counts gold spans that were missed, and the last row
    predicted spans without a gold span of the same bounds.

    Args:
        labels: The K tags in the order of their ids.
        scheme: Tag scheme of the labels: IOB1, IOB2, IOBES, BILOU, BMES or none.
        mode: How to read malformed sequences, `conll` or `strict`.
    """

    full_state_update = False
    confusion: Tensor
    improper: Tensor
    sequences: Tensor
    correct: Tensor
    tokens: Tensor

    def __init__(self, labels: Sequence[str], scheme: str = "IOB2", mode: Mode = "conll"):
        super().__init__()
        tags = [_canonical(tag) if scheme != "none" else ("S", tag) for tag in (*labels, "O")]
        tags[-1] = ("O", "")
        self.types = sorted({kind for prefix, kind in tags if prefix != "O"})
        self.kind = torch.tensor(
            [self.types.index(t) if p != "O" else len(self.types) for p, t in tags]
        )
        rules = {"conll": _conll, "strict": STRICT.get(scheme, _conll)}[mode]
        table = torch.tensor([[rules(a, b) for b in tags] for a in tags])  # [K+1, K+1, 3]
        self.starts, self.inside, self.ends = table.unbind(-1)
        moves, start, end = (torch.from_numpy(a) for a in legal_transitions(list(labels), scheme))
        self.legal = torch.zeros(len(tags), len(tags), dtype=torch.bool)
        self.legal[:-1, :-1], self.legal[-1, :-1], self.legal[:-1, -1], self.legal[-1, -1] = (
            moves,
            start,
            end,
            True,
        )
        size = len(self.types) + 1
        self.add_state("confusion", torch.zeros(size, size, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("improper", "sequences", "correct", "tokens"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, gold: Tensor, mask: Tensor) -> None:
        """Count the spans of the tag ids `predicted` and `gold` [B, L] at real tokens."""
        for name in ("kind", "starts", "inside", "ends", "legal"):
            setattr(self, name, getattr(self, name).to(mask.device))
        predicted, gold = self._frame(predicted, mask), self._frame(gold, mask)
        first, found = self._spans(predicted)
        gold_first, expected = self._spans(gold)
        kind, gold_kind = self.kind[predicted[:, :-1]], self.kind[gold[:, :-1]]
        both = found & expected & (first == gold_first)
        missed, spurious = expected & ~both, found & ~both
        none, size = len(self.types), len(self.types) + 1
        pairs = (
            gold_kind[both] * size + kind[both],
            gold_kind[missed] * size + none,
            none * size + kind[spurious],
        )
        self.confusion += torch.bincount(torch.cat(pairs), minlength=size * size).view(size, size)
        self.improper += (~self.legal[predicted[:, :-1], predicted[:, 1:]]).any(1).sum()
        self.sequences += mask.any(1).sum()
        self.correct += ((predicted == gold)[:, 1:-1] & mask).sum()
        self.tokens += mask.sum()

    def _frame(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Return tags [B, L+2] with O before the first, after the last and at padding."""
        outside = len(self.kind) - 1
        return torch.nn.functional.pad(tags.masked_fill(~mask, outside), (1, 1), value=outside)

    def _spans(self, tags: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the current span began and whether one ends here, each [B, L+1]."""
        before, after = tags[:, :-1], tags[:, 1:]
        start, inside = self.starts[before, after], self.inside[before, after]
        # only IOB1 has tags that may start or continue: they continue if the previous tag started
        start = start & ~(inside & torch.nn.functional.pad(start[:, :-1], (1, 0)))
        inside = inside & ~start
        place = torch.arange(1, tags.shape[1], device=tags.device).expand_as(start)
        began = torch.where(start, place, 0).cummax(1).values
        broken = torch.where(inside, 0, place).cummax(1).values
        open_before = torch.nn.functional.pad((began == broken)[:, :-1], (1, 0))
        began_before = torch.nn.functional.pad(began[:, :-1], (1, 0))
        return began_before, open_before & ~inside & self.ends[before, after]

    def compute(self) -> dict[str, Tensor]:
        """Return the scores and the confusion matrix.

        `precision`, `recall` and `f1` are micro averages, `accuracy` is that of the tags,
        `improper` is the fraction of predicted sequences that violate the scheme, and `confusion`
        the matrix summed over all processes.
        """
        hits, found, expected = counts(self.confusion)
        f1, present = _ratio(2 * hits, found + expected), found + expected > 0
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
    """Return the numbers of correct, predicted and gold spans of each type, each [T]."""
    return confusion.diagonal()[:-1], confusion.sum(0)[:-1], confusion.sum(1)[:-1]


def per_type(types: Sequence[str], confusion: Tensor) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and `support`, the number of gold spans, of each type."""
    hits, found, expected = counts(confusion)
    columns = (
        _ratio(hits, found),
        _ratio(hits, expected),
        _ratio(2 * hits, found + expected),
        expected,
    )
    rows = zip(types, *(column.tolist() for column in columns), strict=True)
    return {
        kind: dict(zip(("precision", "recall", "f1", "support"), row, strict=True))
        for kind, *row in rows
    }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole in float64, 0 if `whole` is 0."""
    return part.double() / whole.clamp(min=1)


Tag = tuple[str, str]
Rule = tuple[bool, bool, bool]


def _canonical(label: str) -> Tag:
    prefix, kind = split_tag(label)
    return PREFIX.get(prefix, prefix), kind


def _conll(before: Tag, after: Tag) -> Rule:
    """Return whether `after` starts a span, continues one, and ends one before it (conlleval)."""
    (a, _), (b, _) = before, after
    start = b != "O" and (b in "BS" or a in "OES" or before[1] != after[1])
    return start, b != "O" and not start, a != "O" and (start or b == "O")


def _strict_iob1(before: Tag, after: Tag) -> Rule:
    (a, _), (b, _), same = before, after, before[1] == after[1]
    inside = b == "I" and a in "BI" and same
    start = (b == "I" and not (a == "I" and same)) or (b == "B" and a in "BI" and same)
    return start, inside, not (a == "B" and b == "B" and not same)


def _strict_iob2(before: Tag, after: Tag) -> Rule:
    return after[0] == "B", after[0] == "I" and before[0] in "BI" and before[1] == after[1], True


def _strict_iobes(before: Tag, after: Tag) -> Rule:
    inside = after[0] in "IE" and before[0] in "BI" and before[1] == after[1]
    return after[0] in "BS", inside, before[0] in "ES"


STRICT = {
    "IOB1": _strict_iob1,
    "IOB2": _strict_iob2,
    "BIO": _strict_iob2,
    "IOBES": _strict_iobes,
    "BILOU": _strict_iobes,
    "BMES": _strict_iobes,
}
