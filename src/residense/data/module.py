"""What all data modules share: splits, vocabulary, vectors, and batches that a run can go on in the middle of."""

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from residense.data.batches import BatchLoader, Encoded
from residense.data.corpus import Corpus
from residense.data.source import Loaded, complete
from residense.data.vectors import Vectors, load_vectors
from residense.data.vocabulary import Vocabulary
from residense.messages import listed, say
from residense.nn.embeddings import SPECIAL

NEEDED = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
}  # splits of each stage


class TextDataModule(L.LightningDataModule):
    """Base of the data modules. Their arguments are those of `ClassificationDataModule` and `TaggingDataModule`."""

    def __init__(
        self,
        path: str | None,
        text: list[str] | None,
        split: tuple[float, float, float] | None,
        split_seed: int,
        vectors: str | None,
        min_frequency: int,
        batch_tokens: int,
        eval_batch_tokens: int,
        seed: int | None,
    ):
        super().__init__()
        self.path, self.text = path, text
        self.split, self.split_seed = split, split_seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.vectors, self.min_frequency = vectors, min_frequency
        self.batch_tokens, self.eval_batch_tokens = batch_tokens, eval_batch_tokens
        self.splits: dict[str, Corpus] = {}
        self.vocabulary: Vocabulary | None = None
        self.known: Vocabulary | None = (
            None  # words and characters to keep, of a model that is trained further
        )
        self.vector_matrix: np.ndarray | None = None
        self._train_loader: BatchLoader | None = None
        self._progress: dict[str, Any] = {}

    # -- what each kind does in its own way -------------------------------------------------------------------------

    def load(self) -> Loaded:
        """All splits there are, in the units of the vocabulary, if there is one."""
        raise NotImplementedError  # pragma: no cover

    def read_texts(self, vocabulary: Vocabulary) -> Corpus:
        """Texts to predict."""
        raise NotImplementedError  # pragma: no cover

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        """From the training split of `self.splits` and pretrained vectors."""
        raise NotImplementedError  # pragma: no cover

    def summarise(self, corpus: Corpus) -> str:
        """What there is in a split, in a few words."""
        raise NotImplementedError  # pragma: no cover

    def check(self) -> None:
        """Refuse options that make no sense, before any file is touched."""
        for name in ("min_frequency", "batch_tokens", "eval_batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1; got {getattr(self, name)}")
        if min(self.seed, self.split_seed) < 0:
            raise ValueError("data.seed and data.split_seed must not be negative")
        if self.split is not None and (min(self.split) <= 0 or sum(self.split) > 1 + 1e-6):
            raise ValueError(
                f"data.split holds three positive shares that sum to 1, or null; got {list(self.split)}"
            )
        if self.text is not None and self._stage() != "predict":
            raise ValueError(
                "--data.text is for predict; what else there is to read is named by --data.path"
            )
        if self.text is not None and self.path is not None:
            raise ValueError("give --data.text or --data.path, not both")

    # -- reading ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Fill the cache, on one process of each node."""
        self.check()
        if self._stage() == "predict":
            return
        self.load()
        if self.vectors:
            load_vectors(self.vectors)

    def setup(self, stage: str) -> None:
        """Read what the stage needs; the vocabulary is that of the model, or is built from the training split."""
        stage = str(
            getattr(stage, "value", stage)
        )  # Lightning's stage names print as something else
        known = getattr(self._task(), "vocabulary", None)
        self.vocabulary = known or self.vocabulary
        if stage == "predict":
            assert self.vocabulary is not None, "only a trained model can predict"
            self.splits = {"predict": self.read_texts(self.vocabulary)}
        elif not self.splits:
            self._load_splits(stage)

    def _load_splits(self, stage: str) -> None:
        loaded = self.load()
        if self.split is not None:
            loaded = complete(loaded, self.split, self.split_seed)
        elif [*loaded.splits] == [
            "train"
        ] and stage != "fit":  # one file is all there is: it is what is asked for
            loaded = loaded._replace(splits={NEEDED[stage][0]: loaded.splits["train"]})
        self.splits = loaded.splits
        for name in NEEDED[stage]:
            if name not in self.splits:
                raise ValueError(
                    f"{self.path}: no {name} split, only {', '.join(self.splits)}; see --data.split"
                )
        if self.vocabulary is None:
            vectors = (
                load_vectors(self.vectors)
                if self.vectors
                else Vectors([], np.zeros((0, 0), np.float32))
            )
            self.vector_matrix = vectors.matrix if self.vectors else None
            built = self.build_vocabulary(loaded, vectors)
            if self.vectors:
                loaded.notes.append(_coverage(self.vectors, vectors, built, self.splits["train"]))
            self.vocabulary = built if self.known is None else built.with_words_of(self.known)
            loaded.notes.extend(_untrained(self.splits, loaded.scheme))
        say(
            *loaded.notes,
            *(f"{name}: {self.summarise(corpus)}" for name, corpus in self.splits.items()),
        )

    # -- batches ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of the training split."""
        assert self.trainer is not None
        window, same = self.trainer.accumulate_grad_batches, self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        self._train_loader = self._loader(
            "train", self.batch_tokens, shuffle=True, window=window, same=same
        )
        if self._progress:
            self._train_loader.resume(self._progress)
        return self._train_loader

    def end_epoch(self) -> None:
        """The task says so, as data modules are not told."""
        assert self._train_loader is not None
        self._train_loader.end_epoch()

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hash of what each split holds, and of the file of word vectors; paths do not matter. Needs `setup`."""
        hashes = {name: corpus.fingerprint for name, corpus in self.splits.items()}
        if self.vectors:
            with open(self.vectors, "rb") as stream:
                hashes["vectors"] = hashlib.file_digest(stream, "sha256").hexdigest()[:32]
        return hashes

    def state_dict(self) -> dict[str, Any]:
        """Which batches of which epoch were trained on, and the fingerprint of the data."""
        if self._train_loader is None:
            return {}
        return {**self._train_loader.state(), "fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind them.

        Raises:
            ValueError: the data has changed since the run began.
        """
        before = state_dict.get("fingerprint", {})
        if self._stage() == "fit" and before and before != self.fingerprint:
            now = self.fingerprint
            changed = ", ".join(
                name for name in {**before, **now} if before.get(name) != now.get(name)
            )
            raise ValueError(
                f"{self.path or 'the embedded corpus'}: {changed} data changed since this run began: restore it, or "
                "start a new run with --init_from"
            )
        self._progress = state_dict
        if self._train_loader is not None:  # sharding makes it first
            self._train_loader.resume(state_dict)

    def val_dataloader(self) -> BatchLoader:
        """Batches of the validation split."""
        return self._loader("validation", self.eval_batch_tokens)

    def test_dataloader(self) -> BatchLoader:
        """Batches of the test split."""
        return self._loader("test", self.eval_batch_tokens)

    def predict_dataloader(self) -> BatchLoader:
        """Batches of the texts to predict."""
        return self._loader("predict", self.eval_batch_tokens)

    def _loader(self, split: str, budget: int, **order: Any) -> BatchLoader:
        assert self.vocabulary is not None and self.trainer is not None
        data = Encoded(self.splits[split], self.vocabulary)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return BatchLoader(data, budget, seed=self.seed, rank=rank, world_size=world_size, **order)

    def _task(self) -> Any:
        return self.trainer.lightning_module if self.trainer is not None else None

    def _stage(self) -> str:
        return (
            self.trainer.state.fn.value
            if self.trainer is not None and self.trainer.state.fn
            else "fit"
        )


def _untrained(splits: dict[str, Corpus], scheme: str) -> list[str]:
    """A warning for each split with labels that train lacks, and how many texts or tokens have them."""
    notes, known = [], splits["train"].label_counts(scheme)
    for name, corpus in splits.items():
        new = [
            f"{label} ({n:,})"
            for label, n in corpus.label_counts(scheme).items()
            if label not in known
        ]
        if new:
            notes.append(
                f"warning: {name} has labels that train lacks, which cannot be learned: {listed(new)}"
            )
    return notes


def _coverage(path: str, vectors: Vectors, vocabulary: Vocabulary, train: Corpus) -> str:
    """How many tokens of training have a vector, as they are written or in lower case."""
    words = vocabulary.word_ids(train.forms)[train.tokens]
    share = ((words >= SPECIAL) & (words < SPECIAL + vocabulary.num_vectors)).mean()
    size, width = vectors.matrix.shape
    return f"{Path(path).name}: {size:,} vectors of width {width}; {share:.1%} of the tokens in training have one"
