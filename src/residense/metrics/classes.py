"""Scores of text classification as a torchmetrics metric, with integer states that any number of
processes sum.

Shapes: B batch, K classes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class ClassScores(Metric):
    """Accuracy, macro-F1, calibration error and a confusion matrix of texts, from integer sum-states.

    With several labels a text is right if all of its labels are, and a class is predicted above one half. The
    calibration error is the expected one, of the most probable class (of each class), over 15 bins   (Guo et al. 2017,
    arXiv 1706.04599).

    Args:
        num_classes: number of classes, K.
        multi_label: whether a text has any number of classes.
    """

    full_state_update = False
    BINS: ClassVar[int] = 15
    confusion: Tensor
    found: Tensor
    gold: Tensor
    hits: Tensor
    right: Tensor
    texts: Tensor
    bins: Tensor

    def __init__(self, num_classes: int, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label
        counts = {
            "confusion": (num_classes, num_classes),
            "found": (num_classes,),
            "gold": (num_classes,),
        }
        counts |= {"hits": (num_classes,), "right": (), "texts": ()}
        for name, shape in counts.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        # of each bin: predictions, those that are right, and the sum of their confidence
        self.add_state("bins", torch.zeros(3, self.BINS, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add texts with class probabilities and targets [B, K]."""
        gold = target > 0.5
        if self.multi_label:
            chosen = probabilities > 0.5
            confidence, correct = (
                torch.where(chosen, probabilities, 1 - probabilities),
                chosen == gold,
            )
        else:
            best, answer = probabilities.argmax(-1), gold.long().argmax(-1)
            chosen = F.one_hot(best, gold.shape[1]).bool()
            confidence, correct = probabilities.amax(-1), best == answer
            pairs = answer * gold.shape[1] + best
            self.confusion += torch.bincount(pairs, minlength=gold.shape[1] ** 2).view_as(
                self.confusion
            )
        self.found, self.gold = self.found + chosen.sum(0), self.gold + gold.sum(0)
        self.hits, self.texts = self.hits + (chosen & gold).sum(0), self.texts + len(gold)
        self.right = self.right + (chosen == gold).all(-1).sum()
        place = (confidence.flatten() * self.BINS).long().clamp(max=self.BINS - 1)
        values = (
            torch.stack([torch.ones_like(confidence), correct.to(confidence), confidence])
            .flatten(1)
            .double()
        )
        self.bins = self.bins + torch.zeros_like(self.bins).index_add_(1, place, values)

    def compute(self) -> dict[str, Tensor]:
        """Precision, recall and F1 of each class [K], accuracy, macro-F1 over the classes that occur, and the error."""
        precision, recall = self.hits / self.found.clamp(min=1), self.hits / self.gold.clamp(min=1)
        f1 = 2 * self.hits / (self.found + self.gold).clamp(min=1)
        seen = (self.found + self.gold) > 0
        count, right, confidence = self.bins
        return {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "accuracy": self.right / self.texts.clamp(min=1),
            "macro_f1": f1[seen].mean() if seen.any() else f1.sum(),
            "calibration_error": (right - confidence).abs().sum() / count.sum().clamp(min=1),
        }

    def scores(self, names: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
        """Numbers to log, and tables by class to keep."""
        values = self.compute()
        columns = [values.pop(name).tolist() for name in ("precision", "recall", "f1")]
        rows = zip(names, *columns, self.gold.tolist(), strict=True)
        types = {
            name: {"precision": p, "recall": r, "f1": f, "support": n} for name, p, r, f, n in rows
        }
        tables: dict[str, Any] = {"types": types, "support": int(self.texts)}
        if not self.multi_label:
            tables |= {
                "confusion": self.confusion.tolist(),
                "rows": list(names),
                "columns": list(names),
            }
        return {name: value.item() for name, value in values.items()}, tables
