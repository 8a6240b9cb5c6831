"""Slots and intents together: one encoder, a tag for each token and a class for each sentence."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from residense.data.batches import Batch
from residense.data.module import TextDataModule
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.metrics import ClassScores, Mode
from residense.nn.embeddings import Embeddings, TableSizes
from residense.nn.encoder import Encoder
from residense.nn.heads import CRF, HeadFactory
from residense.nn.pooling import MaxPooling, Pooling, PoolingFactory
from residense.optim import Warmup
from residense.settings.bounds import Share
from residense.tasks.base import Stage
from residense.tasks.classification import Classes, class_loss, class_probabilities, class_record
from residense.tasks.predictions import Tags
from residense.tasks.tagging import Tagger


class Both(NamedTuple):
    """Predictions for one sentence."""

    tags: Tags
    classes: Classes


class JointTagger(Tagger):
    """A tagger that also pools the encoded tokens to classify the sentence (arXiv 1609.01454).

    Args:
        vocabulary: Vocabulary of the training data.
        embeddings: Tokens to vectors.
        encoder: Blocks wired by connections.
        head: Encoded tokens to tags.
        pooling: Encoded tokens to one vector.
        dropout: Probability of zeroing a feature of that vector.
        intent_weight: Weight of the classes in the loss, in which each part is a mean.
        metric: How to score malformed tag sequences: `conll` as conlleval does, `strict` discards
            their spans.
        optimizer: Called with the parameter groups.
        schedule: Called with the optimizer and the number of optimizer steps of the run.
    """

    scores: ClassVar[dict[str, Literal["min", "max"]]] = {
        **Tagger.scores,
        "val/class_accuracy": "max",
    }
    summary: ClassVar[dict[str, str]] = {**Tagger.summary, "class_accuracy": "class accuracy"}

    def __init__(
        self,
        vocabulary: Vocabulary,
        embeddings: Callable[[TableSizes], Embeddings] = Embeddings,
        encoder: Callable[[int], Encoder] = Encoder,
        head: HeadFactory = CRF,
        pooling: PoolingFactory = MaxPooling,
        dropout: Share = 0.3,
        intent_weight: Share = 0.5,
        metric: Mode = "conll",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Callable[[Optimizer, int], LRScheduler] = Warmup,
    ):
        if not vocabulary.classes:
            raise UsageError("the corpus has no classes: use data SlotsDataModule, or model Tagger")
        super().__init__(vocabulary, embeddings, encoder, head, metric, optimizer, schedule)
        self.pooling = pooling(int(self.encoder.out_dim), int(self.embeddings.out_dim))
        if type(self.pooling).begin is not Pooling.begin:
            name = type(self.pooling).__name__
            raise UsageError(
                f"pooling: {name} adds tokens, which have no tags, to the sentence: use another"
            )
        self.dropout = nn.Dropout(dropout)
        self.intent_weight = intent_weight
        num_classes = len(vocabulary.classes)
        self.multi_label = vocabulary.multi_label
        self.class_head = nn.Linear(int(self.pooling.out_dim), num_classes)
        self.val_classes = ClassScores(num_classes, self.multi_label)
        self.test_classes = ClassScores(num_classes, self.multi_label)

    def class_logits(self, h: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of the classes [B, K]."""
        return self.class_head(self.dropout(self.pooling(h, mask)))

    def loss(self, output: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
        weight = batch["weight"].min() * self.trainer.world_size / batch["sentence_divisor"]
        logits = self.class_logits(*output)
        target = batch["target"]
        equal = target.new_ones(target.shape[1])
        classes = weight * class_loss(logits, target, equal, 0.0, self.multi_label)
        tags = super().loss(output, batch)
        return (1 - self.intent_weight) * tags + self.intent_weight * classes

    def decode(self, output: tuple[Tensor, Tensor]) -> Any:
        probabilities = class_probabilities(self.class_logits(*output), self.multi_label)
        return super().decode(output), probabilities

    def update(self, stage: Stage, decoded: Any, batch: Batch) -> None:
        tags, probabilities = decoded
        super().update(stage, tags, batch)
        real = batch["weight"] > 0
        self._class_metric(stage).update(probabilities[real], batch["target"][real])

    def compute(self, stage: Stage) -> tuple[dict[str, float], dict[str, Any]]:
        metric = self._class_metric(stage)
        values, tables = metric.scores(self.vocabulary.classes)
        metric.reset()
        tag_values, tag_tables = super().compute(stage)
        named = {f"class_{name}": value for name, value in values.items()}
        return tag_values | named, tag_tables | {"classes": tables["types"]}

    def _class_metric(self, stage: Stage) -> ClassScores:
        return self.val_classes if stage == "val" else self.test_classes

    def unbatch(self, decoded: Any, batch: Batch) -> list[Any]:
        tags, probabilities = decoded
        rows = dict(zip(batch["index"].tolist(), probabilities.tolist(), strict=True))
        sentences = super().unbatch(tags, batch)
        return [Both(tags, Classes(tags.place, rows[tags.place])) for tags in sentences]

    def compare(self, predicted: list[Any], data: TextDataModule) -> dict[str, dict[str, float]]:
        return super().compare([both.tags for both in predicted], data)

    def records(
        self, predicted: list[Any], data: TextDataModule, stage: str
    ) -> Iterator[dict[str, Any]]:
        corpus = data.splits[stage]
        classes = {
            int(corpus.document[both.classes.place]): both.classes.probabilities
            for both in predicted
        }
        gold = corpus.document_classes() if stage == "test" else None
        for place, found in self.placed([both.tags for both in predicted], data, stage):
            if place not in classes:  # a text without a token
                yield found | ({"labels": []} if self.multi_label else {"label": None})
                continue
            found |= class_record(classes[place], self.vocabulary.classes, self.multi_label)
            if gold is not None:
                found["gold_label"] = gold[place] if self.multi_label else gold[place][0]
            yield found
