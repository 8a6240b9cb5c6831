"""Text classification: one class for each text, or any number of them."""

from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from residense.data.batches import Batch
from residense.data.module import TextDataModule
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.metrics import ClassScores
from residense.nn.embeddings import Embeddings, TableSizes
from residense.nn.encoder import Encoder
from residense.nn.pooling import MaxPooling, PoolingFactory
from residense.optim import Warmup
from residense.settings.bounds import Positive, Share
from residense.tasks.base import Task


class Classes(NamedTuple):
    """Probabilities of the classes of one text, and its place in the corpus."""

    place: int
    probabilities: list[float]


class Classifier(Task):
    """Embeddings, an encoder, a pooling and a linear layer.

    Args:
        embeddings: tokens to vectors.
        encoder: blocks wired by connections; its transitions may pool.
        pooling: encoded tokens to one vector.
        dropout: probability of zeroing a feature of that vector.
        hidden: widths of hidden layers between that vector and the scores.
        label_smoothing: share of the probability that is spread over all classes   (arXiv 1512.00567).
        class_weights: `balanced` weighs a class by the inverse of how often it occurs in training.
        optimizer: called with the parameter groups.
        schedule: called with the optimizer and the number of optimiser steps of the whole run.
    """

    scores: ClassVar[dict[str, str]] = (
        Task.scores
        | dict.fromkeys(("val/accuracy", "val/macro_f1"), "max")
        | {"val/calibration_error": "min"}
    )
    said: ClassVar[dict[str, str]] = {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "calibration_error": "calibration error",
    }

    weights: Tensor

    def __init__(
        self,
        embeddings: Callable[[TableSizes], Embeddings] = Embeddings,
        encoder: Callable[[int], Encoder] = Encoder,
        pooling: PoolingFactory = MaxPooling,
        dropout: Share = 0.3,
        hidden: list[Positive] | None = None,
        label_smoothing: Share = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Callable[[Optimizer, int], LRScheduler] = Warmup,
    ):
        super().__init__(optimizer, schedule)
        self.make_embeddings, self.make_encoder, self.make_pooling = embeddings, encoder, pooling
        self.dropout = nn.Dropout(dropout)
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.hidden = hidden or []
        self.results: dict[str, dict[str, Any]] = {}

    def build(self, vocabulary: Vocabulary) -> None:
        if not vocabulary.classes:
            raise UsageError(
                "the corpus has no classes: use data ClassificationDataModule, or model Tagger"
            )
        self.embeddings = self.make_embeddings(vocabulary.table_sizes)
        width = int(self.embeddings.out_dim)
        self.encoder = self.make_encoder(width)
        self.pooling = self.make_pooling(int(self.encoder.out_dim), width)
        widths = [int(self.pooling.out_dim), *self.hidden]
        layers = [(nn.Linear(*pair), nn.ReLU()) for pair in pairwise(widths)]
        scores = nn.Linear(widths[-1], len(vocabulary.classes))
        self.head = nn.Sequential(*chain(*layers), scores) if layers else scores
        self.multi_label = vocabulary.multi_label
        self.register_buffer("weights", _weights(vocabulary, self.class_weights), persistent=False)
        self.val_metric, self.test_metric = (
            ClassScores(len(vocabulary.classes), self.multi_label) for _ in range(2)
        )

    def start_from(self, data: TextDataModule) -> None:
        """Start the word embedding from the vectors of the data module."""
        if data.vector_matrix is not None:
            self.embeddings.load_vectors(torch.from_numpy(data.vector_matrix))

    def encode(self, batch: Batch) -> Tensor:
        x = self.embeddings(batch["words"], batch["char_ids"], batch["char_rows"])
        h, mask = self.encoder(*self.pooling.begin(x, batch["mask"]))
        return self.pooling(h, mask)

    def forward(self, batch: Batch) -> Tensor:
        """Scores of the classes: [B, K]."""
        return self.head(self.dropout(self.encode(batch)))

    def _loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Mean over the texts of an optimiser step; the average over processes, as gradients are averaged."""
        share = batch["weight"].min() * self.trainer.world_size / batch["sentence_divisor"]
        return share * class_loss(
            scores, batch["target"], self.weights, self.label_smoothing, self.multi_label
        )

    def probabilities(self, scores: Tensor) -> Tensor:
        """Of each class: [B, K]."""
        return class_probabilities(scores, self.multi_label)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(self(batch), batch)
        self.log("train/loss", self.over_processes(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self(batch)
        real = batch["weight"] > 0
        self.val_metric.update(self.probabilities(scores)[real], batch["target"][real])
        size = int(batch["sentence_divisor"])
        self.log(
            "val/loss", self._loss(scores, batch), batch_size=size, on_epoch=True, sync_dist=True
        )

    def on_validation_epoch_end(self) -> None:
        values = self._finish("val", self.val_metric)
        for name in ("accuracy", "macro_f1", "calibration_error"):
            self.log(f"val/{name}", values[name], prog_bar=name == "accuracy")

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        probabilities, real = self.probabilities(self(batch)), batch["weight"] > 0
        self.test_metric.update(probabilities[real], batch["target"][real])
        return _texts(batch, probabilities)

    def on_test_epoch_end(self) -> None:
        self.log_dict(
            {f"test/{key}": value for key, value in self._finish("test", self.test_metric).items()}
        )

    def _finish(self, stage: str, metric: ClassScores) -> dict[str, float]:
        """Keep the scores and tables of a stage in `results`, and reset the metric."""
        assert self.vocabulary is not None
        values, tables = metric.scores(self.vocabulary.classes)
        self.results[stage] = values | tables
        metric.reset()
        return values

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Classes]:
        return _texts(batch, self.probabilities(self(batch)))

    def records(
        self, predicted: list[Classes], data: TextDataModule, stage: str
    ) -> Iterator[dict[str, Any]]:
        """What is predicted for each text, as JSON; in a test beside what is right."""
        assert self.vocabulary is not None
        corpus, names = data.splits[stage], self.vocabulary.classes
        gold = corpus.document_classes() if stage == "test" else None
        for text in sorted(predicted):
            found = class_record(text.probabilities, names, self.multi_label)
            place = int(corpus.document[text.place])
            right = (
                {}
                if gold is None
                else {"gold": gold[place] if self.multi_label else gold[place][0]}
            )
            yield {"text": corpus.raw[place]} | found | right


def class_loss(
    scores: Tensor, target: Tensor, weights: Tensor, smoothing: float, multi_label: bool
) -> Tensor:
    """Cross-entropy of `scores` [B, K] with `target` [B, K], each class weighed by `weights` [K]; summed."""
    if multi_label:
        smooth = target * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(
            scores.float(), smooth, weight=weights, reduction="sum"
        )
    return F.cross_entropy(
        scores.float(), target, weights, label_smoothing=smoothing, reduction="sum"
    )


def class_probabilities(scores: Tensor, multi_label: bool) -> Tensor:
    """Of each class, from `scores` [B, K]: [B, K]."""
    return scores.float().sigmoid() if multi_label else scores.float().softmax(-1)


def class_record(probabilities: list[float], names: list[str], multi_label: bool) -> dict[str, Any]:
    """The predicted class, or classes, and all probabilities."""
    rounded = {name: round(p, 4) for name, p in zip(names, probabilities, strict=True)}
    if multi_label:
        return {
            "labels": [name for name, p in rounded.items() if p > 0.5],
            "probabilities": rounded,
        }
    best = max(range(len(names)), key=probabilities.__getitem__)
    return {"label": names[best], "probability": rounded[names[best]], "probabilities": rounded}


def _weights(vocabulary: Vocabulary, kind: str) -> Tensor:
    counts = torch.tensor(vocabulary.class_counts, dtype=torch.float).clamp(min=1)
    return counts.sum() / (len(counts) * counts) if kind == "balanced" else torch.ones(len(counts))


def _texts(batch: Batch, probabilities: Tensor) -> list[Classes]:
    rows = zip(
        batch["index"].tolist(), batch["weight"].tolist(), probabilities.tolist(), strict=True
    )
    return [Classes(index, row) for index, weight, row in rows if weight]
