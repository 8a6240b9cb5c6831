"""Tagging: one label for each token (named entities, slots, parts of speech)."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

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
from residense.nn.heads import CRF, HeadFactory
from residense.nn.pooling import MeanPooling
from residense.optim import Warmup
from residense.tags import legal_transitions, spans
from residense.tasks.base import Stage, Task
from residense.tasks.predictions import Tags, merge, record


class Tagger(Task):
    """Embeddings, an encoder and a head that tags each token.

    Args:
        vocabulary: Vocabulary of the training data.
        embeddings: Tokens to vectors.
        encoder: Blocks wired by connections.
        head: Encoded tokens to tags.
        metric: How to score malformed tag sequences: `conll` as conlleval does, `strict` discards
            their spans.
        optimizer: Called with the parameter groups.
        schedule: Called with the optimizer and the number of optimizer steps of the run.
    """

    scores: ClassVar[dict[str, Literal["min", "max"]]] = {
        **Task.scores,
        **dict.fromkeys(("val/f1", "val/precision", "val/recall", "val/accuracy"), "max"),
        "val/improper": "min",
    }
    summary: ClassVar[dict[str, str]] = {
        "macro_f1": "macro F1",
        "accuracy": "token accuracy",
        "improper": "improper sequences",
    }

    def __init__(
        self,
        vocabulary: Vocabulary,
        embeddings: Callable[[TableSizes], Embeddings] = Embeddings,
        encoder: Callable[[int], Encoder] = Encoder,
        head: HeadFactory = CRF,
        metric: Mode = "conll",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Callable[[Optimizer, int], LRScheduler] = Warmup,
    ):
        labels = vocabulary.labels
        scheme = vocabulary.scheme
        if not labels:
            raise UsageError(
                "the corpus has no tags: use data TaggingDataModule, or model Classifier"
            )
        super().__init__(vocabulary, embeddings, encoder, optimizer, schedule)
        if self.encoder.stride > 1:
            raise UsageError(
                "the encoder leaves less than a vector for each token to tag: use stride 1, and a "
                "transition that does not pool"
            )
        self.head = head(int(self.encoder.out_dim), legal_transitions(labels, scheme))
        self.val_metric = SpanF1(labels, scheme, metric)
        self.test_metric = SpanF1(labels, scheme, metric)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the encoded tokens [B, L, D] and their mask [B, L]."""
        x = self.embeddings(batch["words"], batch["char_ids"], batch["char_rows"])
        return self.encoder(x, batch["mask"])

    def encode(self, batch: Batch) -> Tensor:
        h, mask = self(batch)
        return MeanPooling(h.shape[-1], 0)(h, mask)

    def loss(self, output: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
        """Return the mean over the tokens of an optimizer step; processes are averaged later."""
        h, mask = output
        # the sentences of a process are either all real or all fill up an empty share
        loss = batch["weight"].min() * self.head.loss(h, batch["tags"], mask)
        return loss * self.trainer.world_size / batch["divisor"]

    def decode(self, output: tuple[Tensor, Tensor]) -> Any:
        return self.head.decode(*output)

    def update(self, stage: Stage, decoded: Any, batch: Batch) -> None:
        real = batch["mask"] & (batch["weight"] > 0)[:, None]
        self._metric(stage).update(decoded[0], batch["tags"], real)

    def compute(self, stage: Stage) -> tuple[dict[str, float], dict[str, Any]]:
        metric = self._metric(stage)
        scores = metric.compute()
        confusion = scores.pop("confusion")
        values = {name: value.item() for name, value in scores.items()}
        tables = {
            "support": int(confusion[:-1].sum()),
            "types": per_type(metric.types, confusion),
            "confusion": confusion.tolist(),
            "rows": [*metric.types, "(spurious)"],
            "columns": [*metric.types, "(missed)"],
        }
        metric.reset()
        return values, tables

    def _metric(self, stage: Stage) -> SpanF1:
        return self.val_metric if stage == "val" else self.test_metric

    def unbatch(self, decoded: Any, batch: Batch) -> list[Any]:
        lengths = batch["mask"].sum(1).tolist()
        rows = zip(
            batch["index"].tolist(),
            batch["weight"].tolist(),
            lengths,
            *(part.tolist() for part in decoded),
            strict=True,
        )
        return [
            Tags(index, tags[:length], here[:length], after[:length])
            for index, weight, length, tags, here, after in rows
            if weight
        ]

    def records(
        self, predicted: list[Tags], data: TextDataModule, stage: str
    ) -> Iterator[dict[str, Any]]:
        return (found for _, found in self.placed(predicted, data, stage))

    def placed(
        self, predicted: list[Tags], data: TextDataModule, stage: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Return the records, each with the index of its text in the corpus."""
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
        """Return scores on entities unseen in training, and those of a dictionary lookup."""
        if self.vocabulary.scheme == "none":
            return {}
        corpus = data.splits["test"]
        entities = self.vocabulary.entities
        dictionary = Trie(entities)
        whole = merge(predicted, corpus.document, corpus.num_documents)
        documents = zip(corpus.document_tokens(), corpus.document_tags(), whole, strict=True)
        gold = []
        looked_up = []
        gold_unseen = []
        found_unseen = []
        for tokens, tags, prediction in documents:
            if len(prediction.tags) < len(tokens):
                continue  # left out by a limit on batches
            found = spans([self.vocabulary.labels[i] for i in prediction.tags])
            gold.append(spans(tags))
            looked_up.append(dictionary.look_up(tokens))
            gold_unseen.append(unseen(tokens, gold[-1], entities))
            found_unseen.append(unseen(tokens, found, entities))
        return {
            "unseen in training": span_scores(gold_unseen, found_unseen),
            "dictionary lookup": span_scores(gold, looked_up),
        }
