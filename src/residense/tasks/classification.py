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
from residense.tasks.base import Stage, Task


class Classes(NamedTuple):
    """Class probabilities of one text, and its index in the corpus."""

    place: int
    probabilities: list[float]


class Classifier(Task):
    """Embeddings, an encoder, a pooling and a linear layer.

    Args:
        vocabulary: Vocabulary of the training data.
        embeddings: Tokens to vectors.
        encoder: Blocks wired by connections; its transitions may pool.
        pooling: Encoded tokens to one vector.
        dropout: Probability of zeroing a feature of that vector.
        hidden: Widths of hidden layers between that vector and the logits.
        label_smoothing: Probability mass that is spread over all classes (arXiv 1512.00567).
        class_weights: `balanced` weights a class by the inverse of its frequency in training.
        optimizer: Called with the parameter groups.
        schedule: Called with the optimizer and the number of optimizer steps of the run.
    """

    scores: ClassVar[dict[str, Literal["min", "max"]]] = {
        **Task.scores,
        "val/accuracy": "max",
        "val/macro_f1": "max",
        "val/calibration_error": "min",
    }
    summary: ClassVar[dict[str, str]] = {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "calibration_error": "calibration error",
    }
    loss_weight = "sentence_divisor"

    weights: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
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
        if not vocabulary.classes:
            raise UsageError(
                "the corpus has no classes: use data ClassificationDataModule, or model Tagger"
            )
        super().__init__(vocabulary, embeddings, encoder, optimizer, schedule)
        self.pooling = pooling(int(self.encoder.out_dim), int(self.embeddings.out_dim))
        self.dropout = nn.Dropout(dropout)
        num_classes = len(vocabulary.classes)
        widths = [int(self.pooling.out_dim), *(hidden or [])]
        layers = [(nn.Linear(*pair), nn.ReLU()) for pair in pairwise(widths)]
        logits = nn.Linear(widths[-1], num_classes)
        self.head = nn.Sequential(*chain(*layers), logits) if layers else logits
        self.label_smoothing = label_smoothing
        self.multi_label = vocabulary.multi_label
        self.register_buffer("weights", _weights(vocabulary, class_weights), persistent=False)
        self.val_metric = ClassScores(num_classes, self.multi_label)
        self.test_metric = ClassScores(num_classes, self.multi_label)

    def encode(self, batch: Batch) -> Tensor:
        x = self.embeddings(batch["words"], batch["char_ids"], batch["char_rows"])
        h, mask = self.encoder(*self.pooling.begin(x, batch["mask"]))
        return self.pooling(h, mask)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of the classes [B, K]."""
        return self.head(self.dropout(self.encode(batch)))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the mean over the texts of an optimizer step; processes are averaged later."""
        weight = batch["weight"].min() * self.trainer.world_size / batch["sentence_divisor"]
        return weight * class_loss(
            output, batch["target"], self.weights, self.label_smoothing, self.multi_label
        )

    def decode(self, output: Tensor) -> Tensor:
        return class_probabilities(output, self.multi_label)

    def update(self, stage: Stage, decoded: Tensor, batch: Batch) -> None:
        real = batch["weight"] > 0
        self._metric(stage).update(decoded[real], batch["target"][real])

    def compute(self, stage: Stage) -> tuple[dict[str, float], dict[str, Any]]:
        metric = self._metric(stage)
        scores = metric.scores(self.vocabulary.classes)
        metric.reset()
        return scores

    def _metric(self, stage: Stage) -> ClassScores:
        return self.val_metric if stage == "val" else self.test_metric

    def unbatch(self, decoded: Tensor, batch: Batch) -> list[Classes]:
        rows = zip(batch["index"].tolist(), batch["weight"].tolist(), decoded.tolist(), strict=True)
        return [Classes(index, row) for index, weight, row in rows if weight]

    def records(
        self, predicted: list[Classes], data: TextDataModule, stage: str
    ) -> Iterator[dict[str, Any]]:
        corpus = data.splits[stage]
        gold = corpus.document_classes() if stage == "test" else None
        for text in sorted(predicted):
            place = int(corpus.document[text.place])
            found = class_record(text.probabilities, self.vocabulary.classes, self.multi_label)
            if gold is not None:
                found["gold"] = gold[place] if self.multi_label else gold[place][0]
            yield {"text": corpus.raw[place]} | found


def class_loss(
    scores: Tensor, target: Tensor, weights: Tensor, smoothing: float, multi_label: bool
) -> Tensor:
    """Return the summed cross-entropy of logits and targets [B, K], with class weights [K]."""
    if multi_label:
        smooth = target * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(
            scores.float(), smooth, weight=weights, reduction="sum"
        )
    return F.cross_entropy(
        scores.float(), target, weights, label_smoothing=smoothing, reduction="sum"
    )


def class_probabilities(scores: Tensor, multi_label: bool) -> Tensor:
    """Return the probability of each class from logits [B, K]."""
    return scores.float().sigmoid() if multi_label else scores.float().softmax(-1)


def class_record(probabilities: list[float], names: list[str], multi_label: bool) -> dict[str, Any]:
    """Return the predicted class, or classes, and all probabilities as JSON."""
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
