"""Text classification scores as a torchmetrics metric.

Shapes: B batch, K classes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class ClassScores(Metric):
    """Accuracy, macro-F1, calibration error and confusion matrix of text classification.

    All states are sums, so that results are the same on any number of processes. With
    `multi_label`, a class is predicted if its probability exceeds 0.5, and a text is correct if all
    of its labels are. The calibration error is the expected calibration error of the most probable
    class (with `multi_label`, of each class) over 15 bins (Guo et al. 2017, arXiv 1706.04599).

    Args:
        num_classes: Number of classes K.
        multi_label: Whether a text can have any number of classes.
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
        # per bin: number of predictions, number of correct ones, and sum of confidences
        self.add_state("bins", torch.zeros(3, self.BINS, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add texts from their class probabilities and targets, each [B, K]."""
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
        """Return precision, recall and F1 of each class [K], and the overall scores."""
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
        """Return scores to log, and tables by class."""
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
