"""Batches of sentences of similar length with at most a given number of tokens.

The global batches of an epoch depend only on the seed and the epoch. Each process takes its share
of each batch, so any number of processes trains on the same batches.

Shapes: B sentences, L tokens, U distinct words, C characters of the longest word, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from residense.data.corpus import Corpus
from residense.data.vocabulary import Vocabulary


class Batch(TypedDict):
    """Input of a task.

    Attributes:
        words: [B, L] word ids, 0 at padding.
        mask: [B, L] True at real tokens.
        tags: [B, L] tag ids, 0 at padding.
        char_ids: [U, C] character ids of each distinct word, 0 at padding.
        char_rows: [B, L] row of `char_ids` for each token.
        target: [B, K] 1 for the classes of each text.
        index: [B] index of each sentence in the corpus.
        weight: [B] 1, or 0 for a sentence that only fills the empty share of a process.
        num_tokens: Number of real tokens in the global batch.
        divisor: Divisor of the loss: `num_tokens`, averaged over the batches of one optimizer
            step, so that each token of a step has the same weight.
        sentence_divisor: The same for sentences.
    """

    words: Tensor
    mask: Tensor
    tags: Tensor
    char_ids: Tensor
    char_rows: Tensor
    target: Tensor
    index: Tensor
    weight: Tensor
    num_tokens: int
    divisor: float
    sentence_divisor: float


class Encoded:
    """A corpus converted to the ids of a vocabulary.

    Args:
        corpus: The corpus.
        vocabulary: The vocabulary.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary):
        self.corpus = corpus
        self.words = vocabulary.word_ids(corpus.forms)
        self.chars = vocabulary.char_ids(corpus.forms)
        labels = vocabulary.label_ids(corpus.labels) if corpus.labels else np.zeros(1, np.int64)
        self.tags = labels[corpus.tags]
        self.targets = np.zeros((corpus.num_documents, len(vocabulary.classes)), np.float32)
        self.targets[: len(corpus.targets), vocabulary.class_ids(corpus.classes)] = corpus.targets

    def batch(
        self,
        index: np.ndarray,
        weight: float,
        num_tokens: int,
        divisor: float,
        sentence_divisor: float,
    ) -> Batch:
        """Gather the sentences at `index`; the other arguments are those of `Batch`."""
        lengths = self.corpus.lengths[index]
        place = np.arange(lengths.max())
        mask = place < lengths[:, None]
        flat = np.where(mask, self.corpus.offsets[index, None] + place, 0)
        tokens = self.corpus.tokens[flat]
        distinct, rows = np.unique(tokens, return_inverse=True)
        chars = self.chars[distinct]
        return {
            "words": torch.from_numpy(np.where(mask, self.words[tokens], 0)),
            "mask": torch.from_numpy(mask),
            "tags": torch.from_numpy(np.where(mask, self.tags[flat], 0)),
            "char_ids": torch.from_numpy(chars[:, : max(1, int((chars > 0).sum(1).max()))]),
            "char_rows": torch.from_numpy(rows.reshape(mask.shape)),
            "target": torch.from_numpy(self.targets[self.corpus.document[index]]),
            "index": torch.from_numpy(index),
            "weight": torch.full((len(index),), weight),
            "num_tokens": num_tokens,
            "divisor": divisor,
            "sentence_divisor": sentence_divisor,
        }


def plan(
    lengths: np.ndarray, budget: int, noise: float = 0.0, rng: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Divide sentences, sorted by length, into batches of at most `budget` tokens.

    Sentences of equal length are shuffled, which does not change the number of batches.

    Args:
        lengths: Number of tokens of each sentence.
        budget: Most tokens of a batch, padding included; a longer sentence is a batch of its own.
        noise: Lengths that differ by a factor of less than 1 + `noise` count as equal.
        rng: Shuffles sentences and batches; None for a fixed order.

    Returns:
        The indices of the sentences of each batch.
    """
    shuffled = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    rounded = round_up(lengths, noise) if noise else lengths
    order = np.lexsort((shuffled, rounded))
    starts = [0]
    for i, length in enumerate(rounded[order].tolist()):
        if i > starts[-1] and (i + 1 - starts[-1]) * length > budget:
            starts.append(i)
    batches = np.split(order, starts[1:]) if len(order) else []
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


def round_up(lengths: np.ndarray, noise: float) -> np.ndarray:
    """Round lengths up to whole numbers below the powers of 1 + `noise`."""
    exponents = np.ceil(np.log(np.maximum(lengths, 1)) / np.log1p(noise) - 1e-9)
    return np.maximum(lengths, (1 + noise) ** exponents + 1e-9).astype(np.int64)


@dataclass(eq=False)
class BatchLoader:
    """Iterate over the batches of an epoch, from any position.

    Args:
        data: The encoded corpus.
        budget: Most tokens of a global batch, padding included.
        shuffle: Whether each epoch has new batches.
        seed: Seed of the shuffling.
        rank: Index of this process.
        world_size: Number of processes.
        window: Number of batches of one optimizer step.
        same: Whether each epoch has the batches of the first.
        noise: Relative difference of lengths that are mixed within a batch.
        before_batch: Called before each batch, when the previous one is done.
    """

    data: Encoded
    budget: int
    shuffle: bool = False
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    window: int = 1
    same: bool = False
    noise: float = 0.0
    before_batch: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.epoch = 0
        self.position = 0
        self._next = (0, 0)
        self._num_batches = len(plan(self.data.corpus.lengths, self.budget, self.noise))

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        self.epoch, start = self._next
        self._next = (self.epoch + 1, 0)
        rng = np.random.default_rng([self.seed, 0 if self.same else self.epoch])
        lengths = self.data.corpus.lengths
        batches = plan(lengths, self.budget, self.noise, rng if self.shuffle else None)
        tokens = [int(lengths[index].sum()) for index in batches]
        sentences = [len(index) for index in batches]
        for place in range(start, len(batches)):
            self.before_batch()
            self.position = place + 1
            first = place // self.window * self.window
            step = slice(first, first + self.window)
            # The trainer divides the loss by the window, even if the last step has fewer batches.
            divisors = (sum(tokens[step]) / self.window, sum(sentences[step]) / self.window)
            yield self._share(batches[place], tokens[place], *divisors)

    def _share(self, index: np.ndarray, *sizes: Any) -> Batch:
        """Return what this process computes of the global batch at `index`."""
        mine = index[self.rank :: self.world_size]
        if len(mine):
            return self.data.batch(mine, 1.0, *sizes)
        return self.data.batch(index[:1], 0.0, *sizes)  # to take part in collectives

    def state(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were yielded.

        It is not called `state_dict`, because Lightning does not restore that in every case.
        """
        return {"epoch": self.epoch, "position": self.position}

    def end_epoch(self) -> None:
        """Mark the epoch as finished, even if a limit left out some of its batches."""
        self.position = len(self)

    def resume(self, state: dict[str, Any]) -> None:
        """Continue after the last batch that was yielded."""
        self.epoch = state["epoch"]
        self.position = state["position"]
        finished = self.position >= len(self)
        self._next = (self.epoch + 1, 0) if finished else (self.epoch, self.position)
