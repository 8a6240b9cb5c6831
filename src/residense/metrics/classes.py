"""Scores of text classification as a torchmetrics metric, whose states any number of processes sum.

Shapes: B batch, K classes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class ClassScores(Metric):
    """Accuracy, macro-F1, calibration error and a confusion matrix of texts.

    With several labels, a text is right if all of its labels are, and a class is predicted above
    one half. The calibration error is the expected one, of the most probable class (of each class),
    over 15 bins (Guo et al. 2017, arXiv 1706.04599).

    Args:
        num_classes: Number of classes, K.
        multi_label: Whether a text has any number of classes.
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
        shapes = dict.fromkeys(("found", "gold", "hits"), (num_classes,))
        shapes |= {"confusion": (num_classes, num_classes), "right": (), "texts": ()}
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        # of each bin: predictions, those that are right, and the sum of their confidence
        self.add_state("bins", torch.zeros(3, self.BINS, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add texts with class probabilities and targets [B, K]."""
        gold = target > 0.5
        if self.multi_label:
            chosen = probabilities > 0.5
            confidence = torch.where(chosen, probabilities, 1 - probabilities)
            correct = chosen == gold
        else:
            best = probabilities.argmax(-1)
            answer = gold.long().argmax(-1)
            chosen = F.one_hot(best, gold.shape[1]).bool()
            confidence = probabilities.amax(-1)
            correct = best == answer
            pairs = answer * gold.shape[1] + best
            found = torch.bincount(pairs, minlength=gold.shape[1] ** 2)
            self.confusion += found.view_as(self.confusion)
        self.found += chosen.sum(0)
        self.gold += gold.sum(0)
        self.hits += (chosen & gold).sum(0)
        self.texts += len(gold)
        self.right += (chosen == gold).all(-1).sum()
        confidence = confidence.nan_to_num()  # training reports weights that diverged
        place = (confidence.flatten() * self.BINS).long().clamp(max=self.BINS - 1)
        values = torch.stack([torch.ones_like(confidence), correct.to(confidence), confidence])
        self.bins.index_add_(1, place, values.flatten(1).double())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores, from the states of all processes.

        Returns:
            `precision`, `recall`, `f1` and `support` of each class [K]; `confusion` [K, K], of gold
            (row) and predicted class; `texts`; `accuracy`; `macro_f1` of the classes that occur;
            `calibration_error`.
        """
        precision = self.hits / self.found.clamp(min=1)
        recall = self.hits / self.gold.clamp(min=1)
        f1 = 2 * self.hits / (self.found + self.gold).clamp(min=1)
        seen = (self.found + self.gold) > 0
        count, right, confidence = self.bins
        return {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": self.gold,
            "confusion": self.confusion,
            "texts": self.texts,
            "accuracy": self.right / self.texts.clamp(min=1),
            "macro_f1": f1[seen].mean() if seen.any() else f1.sum(),
            "calibration_error": (right - confidence).abs().sum() / count.sum().clamp(min=1),
        }

    def scores(self, names: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the numbers to log, and the tables by class to save.

        Args:
            names: Names of the classes.
        """
        values = self.compute()
        columns = {name: values.pop(name) for name in ("precision", "recall", "f1", "support")}
        confusion = values.pop("confusion")
        types = {
            label: {name: column[i].item() for name, column in columns.items()}
            for i, label in enumerate(names)
        }
        tables: dict[str, Any] = {"types": types, "support": int(values.pop("texts"))}
        if not self.multi_label:
            labels = list(names)
            tables |= {"confusion": confusion.tolist(), "rows": labels, "columns": labels}
        return {name: value.item() for name, value in values.items()}, tables
