"""Batches of sentences of similar length under a budget of tokens, cut from flat arrays.

The global batches of an epoch depend on seed and epoch alone. Each process takes its share of each, so that any number
of processes trains on the same batches and none is dropped or repeated.

Shapes: B batch, L length, U distinct words of the batch, C characters of the longest, K classes.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from residense.data.corpus import Corpus
from residense.data.vocabulary import Vocabulary


class Batch(TypedDict):
    """What a task reads.

    Attributes:
        words: [B, L] word ids, 0 at padding.
        mask: [B, L] True at real tokens.
        tags: [B, L] tag ids, 0 at padding.
        char_ids: [U, C] character ids of each distinct word, 0 at padding.
        char_rows: [B, L] row of `char_ids` of each token.
        target: [B, K] 1 for the classes of each text.
        index: [B] place of each sentence in the corpus.
        weight: [B] 1, or 0 for a sentence that only fills the empty share of a process.
        num_tokens: number of real tokens in the global batch.
        divisor: what its loss is divided by: `num_tokens`, or its mean over the batches of one optimiser step, so that
            each token of a step weighs the same.
        sentence_divisor: the same in sentences.
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


class Sizes(NamedTuple):
    """Of a global batch, and means over the batches of its optimiser step; see `Batch`."""

    num_tokens: int
    divisor: float
    sentence_divisor: float


class Encoded:
    """A corpus in the ids of a vocabulary, ready to be cut into batches."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary):
        self.corpus = corpus
        self.words = vocabulary.word_ids(corpus.forms)
        self.chars = vocabulary.char_ids(corpus.forms)
        labels = vocabulary.label_ids(corpus.labels) if corpus.labels else np.zeros(1, np.int64)
        self.tags = labels[corpus.tags]
        self.targets = np.zeros((corpus.num_documents, len(vocabulary.classes)), np.float32)
        self.targets[: len(corpus.targets), vocabulary.class_ids(corpus.classes)] = corpus.targets

    def batch(self, index: np.ndarray, sizes: Sizes, weight: float = 1.0) -> Batch:
        """Gather the sentences at `index`."""
        lengths = self.corpus.lengths[index]
        place = np.arange(lengths.max())
        mask = place < lengths[:, None]
        flat = np.where(mask, self.corpus.offsets[index, None] + place, 0)
        distinct, rows = np.unique(self.corpus.tokens[flat], return_inverse=True)
        chars = self.chars[distinct]
        return {
            "words": torch.from_numpy(np.where(mask, self.words[self.corpus.tokens[flat]], 0)),
            "mask": torch.from_numpy(mask),
            "tags": torch.from_numpy(np.where(mask, self.tags[flat], 0)),
            "char_ids": torch.from_numpy(chars[:, : max(1, int((chars > 0).sum(1).max()))]),
            "char_rows": torch.from_numpy(rows.reshape(mask.shape)),
            "target": torch.from_numpy(self.targets[self.corpus.document[index]]),
            "index": torch.from_numpy(index),
            "weight": torch.full((len(index),), weight),
            "num_tokens": sizes.num_tokens,
            "divisor": sizes.divisor,
            "sentence_divisor": sizes.sentence_divisor,
        }


def plan(
    lengths: np.ndarray, budget: int, noise: float = 0.0, rng: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Cut sentences, sorted by length, into batches of at most `budget` tokens, padding included.

    Sentences of equal length are shuffled, which does not change the number of batches.

    Args:
        lengths: number of tokens of each sentence.
        budget: largest number of tokens of a batch; a longer sentence is a batch of its own.
        noise: lengths that differ by a factor of less than 1 + `noise` count as equal.
        rng: shuffles sentences and batches; null for a fixed order.
    """
    shuffled = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    rounded = round_up(lengths, noise) if noise else lengths
    order = np.lexsort((shuffled, rounded))
    batches = []
    start = 0
    for i, length in enumerate(rounded[order].tolist()):
        if i > start and (i + 1 - start) * length > budget:
            batches.append(order[start:i])
            start = i
    if len(order):
        batches.append(order[start:])
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def round_up(lengths: np.ndarray, noise: float) -> np.ndarray:
    """Round lengths up to whole numbers below the powers of 1 + `noise`."""
    exponents = np.ceil(np.log(np.maximum(lengths, 1)) / np.log1p(noise) - 1e-9)
    return np.maximum(lengths, (1 + noise) ** exponents + 1e-9).astype(np.int64)


class BatchLoader:
    """Iterates over the batches of an epoch; knows where it is, so that a run can go on in the middle of one.

    Args:
        data: the encoded corpus.
        budget: tokens of a global batch, padding included.
        shuffle: new batches in each epoch, by seed.
        seed: of the shuffling.
        rank: of this process.
        world_size: number of processes.
        window: batches of one optimiser step.
        same: shuffle once: each epoch has the batches of the first.
        noise: relative difference of lengths that are mixed within a batch.
    """

    def __init__(
        self,
        data: Encoded,
        budget: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        window: int = 1,
        same: bool = False,
        noise: float = 0.0,
    ):
        self.data = data
        self.budget = budget
        self.shuffle = shuffle
        self.seed = seed
        self.same = same
        self.noise = noise
        self.rank, self.world_size, self.window = rank, world_size, window
        self.epoch, self.position = 0, 0
        self.before_batch: Callable[[], None] = lambda: None  # all of the batch before is done
        self._next = (0, 0)
        self._num_batches = len(plan(data.corpus.lengths, budget, noise))

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        self.epoch, start = self._next
        self._next = (self.epoch + 1, 0)
        rng = (
            np.random.default_rng([self.seed, 0 if self.same else self.epoch])
            if self.shuffle
            else None
        )
        batches = plan(self.data.corpus.lengths, self.budget, self.noise, rng)
        tokens = [int(self.data.corpus.lengths[index].sum()) for index in batches]
        sentences = [len(index) for index in batches]
        for place in range(start, len(batches)):
            self.before_batch()
            self.position = place + 1
            first = place // self.window * self.window
            # the trainer divides the loss by the window, also where the epoch's last step has fewer batches
            means = (
                sum(counts[first : first + self.window]) / self.window
                for counts in (tokens, sentences)
            )
            yield self._share(batches[place], Sizes(tokens[place], *means))

    def _share(self, index: np.ndarray, sizes: Sizes) -> Batch:
        mine = index[self.rank :: self.world_size]
        if len(mine):
            return self.data.batch(mine, sizes)
        return self.data.batch(
            index[:1], sizes, 0.0
        )  # takes part in collectives, counts for nothing

    def state(self) -> dict[str, int]:
        """Epoch, and how many of its batches were handed out.

        Not called `state_dict`: Lightning restores that only in some orders of events, the data module in all.
        """
        return {"epoch": self.epoch, "position": self.position}

    def end_epoch(self) -> None:
        """The epoch is over, even if a limit left some of its batches out."""
        self.position = len(self)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on behind the batch that was handed out last."""
        epoch, position = state["epoch"], state["position"]
        self.epoch, self.position = epoch, position
        self._next = (epoch, position) if position < len(self) else (epoch + 1, 0)
