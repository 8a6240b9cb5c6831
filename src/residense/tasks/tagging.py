"""Tagging: one label for each token (named entities, slots, parts of speech)."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from residense.data.batches import Batch
from residense.data.module import TextDataModule
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.metrics import Mode, SpanF1, per_type
from residense.metrics.baseline import Trie, span_scores, unseen
from residense.nn.embeddings import Embeddings, TableSizes
from residense.nn.encoder import Encoder
from residense.nn.heads import CRF, Decoded, HeadFactory
from residense.nn.pooling import MeanPooling
from residense.optim import Warmup
from residense.tags import legal_transitions, spans
from residense.tasks.base import Task
from residense.tasks.predictions import Tags, merge, record


class Tagger(Task):
    """Embeddings, an encoder and a head that tags each token.

    Args:
        embeddings: tokens to vectors.
        encoder: blocks wired by connections.
        head: encoded tokens to tags.
        metric: how malformed predictions are scored: `conll` as conlleval does, `strict` discards them.
        optimizer: called with the parameter groups.
        schedule: called with the optimizer and the number of optimiser steps of the whole run.
    """

    scores: ClassVar[dict[str, str]] = Task.scores | dict.fromkeys(
        ("val/f1", "val/precision", "val/recall", "val/accuracy"), "max"
    )
    said: ClassVar[dict[str, str]] = {
        "macro_f1": "macro F1",
        "accuracy": "token accuracy",
        "improper": "improper sequences",
    }

    validation_scores: ClassVar[tuple[str, ...]] = (
        "f1",
        "precision",
        "recall",
        "accuracy",
        "improper",
    )

    def __init__(
        self,
        embeddings: Callable[[TableSizes], Embeddings] = Embeddings,
        encoder: Callable[[int], Encoder] = Encoder,
        head: HeadFactory = CRF,
        metric: Mode = "conll",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Callable[[Optimizer, int], LRScheduler] = Warmup,
    ):
        super().__init__(optimizer, schedule)
        self.make_embeddings, self.make_encoder, self.make_head = embeddings, encoder, head
        self.metric_mode: Mode = metric
        self.results: dict[str, dict[str, Any]] = {}

    def build(self, vocabulary: Vocabulary) -> None:
        labels, scheme = vocabulary.labels, vocabulary.scheme
        if not labels:
            raise UsageError(
                "the corpus has no tags: use data TaggingDataModule, or model Classifier"
            )
        self.embeddings = self.make_embeddings(vocabulary.table_sizes)
        self.encoder = self.make_encoder(int(self.embeddings.out_dim))
        if self.encoder.stride > 1:
            raise UsageError(
                "the encoder leaves less than a vector for each token to tag: use stride 1, and a "
                "transition that does not pool"
            )
        self.head = self.make_head(int(self.encoder.out_dim), legal_transitions(labels, scheme))
        self.val_metric = SpanF1(labels, scheme, self.metric_mode)
        self.test_metric = SpanF1(labels, scheme, self.metric_mode)

    def start_from(self, data: TextDataModule) -> None:
        """Start the word embedding from the vectors of the data module."""
        if data.vector_matrix is not None:
            self.embeddings.load_vectors(torch.from_numpy(data.vector_matrix))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoded tokens [B, L, D] and their mask [B, L]."""
        x = self.embeddings(batch["words"], batch["char_ids"], batch["char_rows"])
        return self.encoder(x, batch["mask"])

    def encode(self, batch: Batch) -> Tensor:
        h, mask = self(batch)
        return MeanPooling(h.shape[-1], 0)(h, mask)

    def _loss(self, h: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Mean over the tokens of an optimiser step; the average over processes, as gradients are averaged."""
        weight = batch[
            "weight"
        ].min()  # a share is either real as a whole or an empty one filled up
        return (
            weight
            * self.head.loss(h, batch["tags"], mask)
            * self.trainer.world_size
            / batch["divisor"]
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        h, mask = self(batch)
        loss = self._loss(h, mask, batch)
        self.log("train/loss", self.over_processes(loss), prog_bar=True)
        return loss

    def evaluate(self, stage: str, h: Tensor, mask: Tensor, batch: Batch) -> Decoded:
        """Tags as the head decodes them, which are counted in the metrics of a stage."""
        decoded = self.head.decode(h, mask)
        self._metric(stage).update(decoded[0], batch["tags"], mask & (batch["weight"] > 0)[:, None])
        return decoded

    def output(self, batch: Batch, h: Tensor, mask: Tensor, decoded: Decoded) -> list[Any]:
        """What is predicted for each sentence of a batch."""
        return _sentences(batch, decoded)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        h, mask = self(batch)
        tokens = batch["num_tokens"]
        self.log(
            "val/loss", self._loss(h, mask, batch), batch_size=tokens, on_epoch=True, sync_dist=True
        )
        self.evaluate("val", h, mask, batch)

    def on_validation_epoch_end(self) -> None:
        values = self.finish("val")
        for name in self.validation_scores:
            self.log(f"val/{name}", values[name], prog_bar=name == "f1")

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        h, mask = self(batch)
        return self.output(batch, h, mask, self.evaluate("test", h, mask, batch))

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{key}": value for key, value in self.finish("test").items()})

    def finish(self, stage: str) -> dict[str, float]:
        """Keep the scores and tables of a stage in `results`, and reset the metric."""
        metric = self._metric(stage)
        scores = metric.compute()
        confusion = scores.pop("confusion")
        values = {name: value.item() for name, value in scores.items()}
        support = {"support": int(confusion[:-1].sum())}
        tables: dict[str, Any] = {
            "types": per_type(metric.types, confusion),
            "confusion": confusion.tolist(),
        }
        tables |= {"rows": [*metric.types, "(spurious)"], "columns": [*metric.types, "(missed)"]}
        self.results[stage] = values | support | tables
        metric.reset()
        return values

    def _metric(self, stage: str) -> SpanF1:
        return self.val_metric if stage == "val" else self.test_metric

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Any]:
        h, mask = self(batch)
        return self.output(batch, h, mask, self.head.decode(h, mask))

    def records(
        self, predicted: list[Tags], data: TextDataModule, stage: str
    ) -> Iterator[dict[str, Any]]:
        """What is predicted for each text, as JSON; in a test beside what is right."""
        return (found for _, found in self.placed(predicted, data, stage))

    def placed(
        self, predicted: list[Tags], data: TextDataModule, stage: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same, each with the place of its text in the corpus."""
        assert self.vocabulary is not None
        corpus, labels = data.splits[stage], self.vocabulary.labels
        gold = corpus.document_tags() if stage == "test" else None
        texts = corpus.document_texts(self.vocabulary.unit)
        for i, tags in enumerate(merge(predicted, corpus.document, len(texts))):
            if len(tags.tags) < len(texts[i].offsets):
                continue  # left out by a limit on batches
            yield (
                i,
                record(texts[i], tags, labels, self.vocabulary.scheme, gold[i] if gold else None),
            )

    def compare(self, predicted: list[Tags], data: TextDataModule) -> dict[str, dict[str, float]]:
        """Scores on entities unseen in training, and of looking up the entities of training."""
        assert self.vocabulary is not None
        if self.vocabulary.scheme == "none":
            return {}
        corpus, entities, labels = (
            data.splits["test"],
            self.vocabulary.entities,
            self.vocabulary.labels,
        )
        whole = zip(
            corpus.document_tokens(),
            corpus.document_tags(),
            merge(predicted, corpus.document, corpus.num_documents),
            strict=True,
        )
        kept = [
            row for row in whole if len(row[2].tags) == len(row[0])
        ]  # the others a limit on batches left out
        tokens = [row[0] for row in kept]
        gold = [spans(row[1]) for row in kept]
        found = [spans([labels[i] for i in row[2].tags]) for row in kept]
        known = Trie(entities)
        news, guessed = (
            [unseen(t, s, entities) for t, s in zip(tokens, x, strict=True)] for x in (gold, found)
        )
        return {
            "unseen in training": span_scores(news, guessed),
            "dictionary lookup": span_scores(gold, map(known.look_up, tokens)),
        }


def _sentences(batch: Batch, decoded: Decoded) -> list[Tags]:
    lists = [part.tolist() for part in decoded]
    rows = zip(
        batch["index"].tolist(),
        batch["mask"].sum(1).tolist(),
        batch["weight"].tolist(),
        *lists,
        strict=True,
    )
    return [
        Tags(index, tags[:length], here[:length], after[:length])
        for index, length, weight, tags, here, after in rows
        if weight
    ]
