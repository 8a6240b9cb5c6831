"""Slots and intents together: one encoder, a tag for each token and a class for each sentence."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

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
from residense.nn.heads import CRF, Decoded, HeadFactory
from residense.nn.pooling import MaxPooling, Pooling, PoolingFactory
from residense.optim import Warmup
from residense.settings.bounds import Share
from residense.tasks.classification import Classes, class_loss, class_probabilities, class_record
from residense.tasks.predictions import Tags
from residense.tasks.tagging import Tagger


class Both(NamedTuple):
    """What is predicted for one sentence."""

    tags: Tags
    classes: Classes


class JointTagger(Tagger):
    """A tagger whose encoded tokens are also pooled to find the class of the sentence   (Liu & Lane 2016, 1609.01454).

    Args:
        embeddings: tokens to vectors.
        encoder: blocks wired by connections.
        head: encoded tokens to tags.
        pooling: encoded tokens to one vector.
        dropout: probability that a feature of that vector is set to zero.
        intent_weight: weight of the classes in the loss, in which each part is a mean.
        metric: how malformed predictions are scored: `conll` as conlleval does, `strict` discards them.
        optimizer: called with the parameter groups.
        schedule: called with the optimizer and the number of optimiser steps of the whole run.
    """

    scores: ClassVar[dict[str, str]] = Tagger.scores | {"val/class_accuracy": "max"}
    validation_scores: ClassVar[tuple[str, ...]] = (*Tagger.validation_scores, "class_accuracy")
    said: ClassVar[dict[str, str]] = Tagger.said | {"class_accuracy": "class accuracy"}

    def __init__(
        self,
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
        super().__init__(embeddings, encoder, head, metric, optimizer, schedule)
        self.make_pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.intent_weight = intent_weight

    def build(self, vocabulary: Vocabulary) -> None:
        if not vocabulary.classes:
            raise UsageError("the corpus has no classes: use data SlotsDataModule, or model Tagger")
        super().build(vocabulary)
        self.pooling = self.make_pooling(int(self.encoder.out_dim), int(self.embeddings.out_dim))
        if type(self.pooling).begin is not Pooling.begin:
            name = type(self.pooling).__name__
            raise UsageError(
                f"pooling: {name} adds tokens to the sentence, which have no tags: use another pooling"
            )
        count, self.multi_label = len(vocabulary.classes), vocabulary.multi_label
        self.class_head = nn.Linear(int(self.pooling.out_dim), count)
        self.val_classes, self.test_classes = (
            ClassScores(count, self.multi_label) for _ in range(2)
        )

    def class_scores(self, h: Tensor, mask: Tensor) -> Tensor:
        """Scores of the classes: [B, K]."""
        return self.class_head(self.dropout(self.pooling(h, mask)))

    def probabilities(self, h: Tensor, mask: Tensor) -> Tensor:
        """Of each class: [B, K]."""
        return class_probabilities(self.class_scores(h, mask), self.multi_label)

    def _loss(self, h: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        share = batch["weight"].min() * self.trainer.world_size / batch["sentence_divisor"]
        scores, target = self.class_scores(h, mask), batch["target"]
        classes = share * class_loss(
            scores, target, target.new_ones(target.shape[1]), 0.0, self.multi_label
        )
        return (1 - self.intent_weight) * super()._loss(
            h, mask, batch
        ) + self.intent_weight * classes

    def evaluate(self, stage: str, h: Tensor, mask: Tensor, batch: Batch) -> Decoded:
        real = batch["weight"] > 0
        self._class_metric(stage).update(self.probabilities(h, mask)[real], batch["target"][real])
        return super().evaluate(stage, h, mask, batch)

    def output(self, batch: Batch, h: Tensor, mask: Tensor, decoded: Decoded) -> list[Any]:
        probabilities = dict(
            zip(batch["index"].tolist(), self.probabilities(h, mask).tolist(), strict=True)
        )
        sentences = super().output(batch, h, mask, decoded)
        return [Both(tags, Classes(tags.place, probabilities[tags.place])) for tags in sentences]

    def finish(self, stage: str) -> dict[str, float]:
        assert self.vocabulary is not None
        metric = self._class_metric(stage)
        values, tables = metric.scores(self.vocabulary.classes)
        metric.reset()
        named = {f"class_{name}": value for name, value in values.items()}
        both = super().finish(stage) | named
        self.results[stage] |= named | {"classes": tables["types"]}
        return both

    def _class_metric(self, stage: str) -> ClassScores:
        return self.val_classes if stage == "val" else self.test_classes

    def compare(self, predicted: list[Any], data: TextDataModule) -> dict[str, dict[str, float]]:
        return super().compare([both.tags for both in predicted], data)

    def records(
        self, predicted: list[Any], data: TextDataModule, stage: str
    ) -> Iterator[dict[str, Any]]:
        assert self.vocabulary is not None
        corpus, names = data.splits[stage], self.vocabulary.classes
        classes = {
            int(corpus.document[both.classes.place]): both.classes.probabilities
            for both in predicted
        }
        gold = corpus.document_classes() if stage == "test" else None
        for place, found in self.placed([both.tags for both in predicted], data, stage):
            if place not in classes:  # a text without a token
                yield found | ({"labels": []} if self.multi_label else {"label": None})
                continue
            right = (
                {}
                if gold is None
                else {"gold_label": gold[place] if self.multi_label else gold[place][0]}
            )
            yield found | class_record(classes[place], names, self.multi_label) | right
