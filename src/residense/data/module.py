"""Base of the data modules: splits, vocabulary, vectors, and resumable batches."""

import hashlib
import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from residense.data.batches import BatchLoader, Encoded
from residense.data.corpus import Corpus
from residense.data.partition import complete, untrained
from residense.data.readers.file import File
from residense.data.source import Loaded, Source, Splits
from residense.data.synthetic import Synthetic
from residense.data.synthetic_texts import SyntheticTexts
from residense.data.vectors import Vectors, load_vectors
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.messages import say
from residense.settings.bounds import Count, Positive, Share

NO_VECTORS = Vectors([], np.zeros((0, 0), np.float32))
NEEDED = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}


class TextDataModule(L.LightningDataModule):
    """Base of the data modules.

    Args:
        path: Folder, file or hf:ID; or the splits themselves: a `datasets.DatasetDict`, or
            iterables of (tokens, tags), (text, spans) or (text, label). None for the synthetic
            corpus.
        synthetic: The synthetic corpus.
        reading: How to read the files.
        text: Texts to predict, instead of a file.
        files: Glob that the file names in the folder must match.
        encoding: Encoding of the files.
        repair: Repair or drop malformed input where that is safe, and report how often.
        split: Fractions for train, validation and test of a single file; null takes it whole.
        split_seed: Seed of the splitting.
        vectors: Pretrained word vectors (GloVe, word2vec, fastText) as text, .gz or .zip.
        min_frequency: How often a training word must occur to be known, unless it has a vector.
        max_length: Tokens; longer sentences are split and joined in predictions, texts are cut.
        batch_tokens: Tokens of a training batch over all processes, padding included.
        length_noise: Relative difference of lengths within a training batch; 0 pads least.
        eval_batch_tokens: Tokens of a batch where no gradient is computed.
        seed: Seed of the order of the batches; null for that of --seed_everything.
    """

    def __init__(
        self,
        path: str | Splits | None,
        synthetic: Synthetic | SyntheticTexts,
        reading: File,
        text: list[str] | None = None,
        files: str | None = None,
        encoding: str = "utf-8",
        repair: bool = False,
        split: tuple[float, float, float] | None = (0.8, 0.1, 0.1),
        split_seed: Count = 0,
        vectors: str | None = None,
        min_frequency: Positive = 1,
        max_length: Positive = 256,
        batch_tokens: Positive = 512,
        length_noise: Share = 0.0,
        eval_batch_tokens: Positive = 4096,
        seed: Count | None = None,
    ):
        super().__init__()
        self.path = path
        self.text = text
        options = replace(reading, encoding=encoding, repair=repair)
        self.source = Source(path, synthetic, files, options)
        self.split = split
        self.split_seed = split_seed
        self.vectors = vectors
        self.min_frequency = min_frequency
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.length_noise = length_noise
        self.eval_batch_tokens = eval_batch_tokens
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.splits: dict[str, Corpus] = {}
        self._vocabulary: Vocabulary | None = None
        self.vector_matrix: np.ndarray | None = None
        self._train_loader: BatchLoader | None = None
        self._progress: dict[str, Any] = {}

    @property
    def corpus_name(self) -> str:
        """The name of the corpus in messages."""
        named = self.path if isinstance(self.path, str) else "data.path"
        return "the synthetic corpus" if self.path is None else named

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the training split; assign that of a trained model to use it instead."""
        if self._vocabulary is None:
            self._read("fit")
        assert self._vocabulary is not None
        return self._vocabulary

    @vocabulary.setter
    def vocabulary(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def load(self, vocabulary: Vocabulary | None) -> Loaded:
        """Return all splits, in the units and the tag scheme of a vocabulary if there is one."""
        raise NotImplementedError  # pragma: no cover

    def read_texts(self, vocabulary: Vocabulary) -> Corpus:
        """Return the texts to predict."""
        raise NotImplementedError  # pragma: no cover

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        """Return a vocabulary of the training split and pretrained vectors."""
        raise NotImplementedError  # pragma: no cover

    def summarize(self, corpus: Corpus) -> str:
        """Describe a split in a few words."""
        raise NotImplementedError  # pragma: no cover

    def check(self) -> None:
        """Refuse options that contradict each other, before any file is read."""
        if self.split is not None and (min(self.split) <= 0 or sum(self.split) > 1 + 1e-6):
            wanted = "data.split must be three positive shares that sum to 1, or null"
            raise UsageError(f"{wanted}; got {list(self.split)}")
        if self.text is not None and isinstance(self.path, str):
            raise UsageError("give --data.text or --data.path, not both")

    def prepare_data(self) -> None:
        """Fill the cache, in one process of each node."""
        is_cached = isinstance(self.path, str | None)
        if is_cached and not self.splits and self._stage() != "predict":
            self.check()
            self.load(self._vocabulary)

    def setup(self, stage: str) -> None:
        """Read what a stage needs, unless that was done for the vocabulary."""
        stage = str(getattr(stage, "value", stage))  # Lightning passes members of an enumeration
        if stage == "predict":
            self.check()
            self.splits = {"predict": self.read_texts(self.vocabulary)}
        elif not self.splits:
            self._read(stage)

    def _read(self, stage: str) -> None:
        """Read the splits that a stage needs; build the vocabulary if there is none."""
        if self.text is not None:
            raise UsageError("--data.text is for predict; give other input with --data.path")
        self.check()
        loaded = self.load(self._vocabulary)
        if self.split is not None:
            loaded = complete(loaded, self.split, self.split_seed)
        elif [*loaded.splits] == ["train"] and stage != "fit":  # the only file is what is meant
            loaded = loaded._replace(splits={NEEDED[stage][0]: loaded.splits["train"]})
        for name in NEEDED[stage]:
            if name not in loaded.splits:
                found = f"no {name} split, only {', '.join(loaded.splits)}"
                raise UsageError(f"{self.corpus_name}: {found}; see --data.split")
        notes = [*loaded.notes]
        if self._vocabulary is None:
            vectors = load_vectors(self.vectors) if self.vectors else NO_VECTORS
            self._vocabulary = self.build_vocabulary(loaded, vectors)
            if self.vectors:
                self.vector_matrix = vectors.matrix
                size, width = vectors.matrix.shape
                covered = self._vocabulary.coverage(loaded.splits["train"])
                sizes = f"{Path(self.vectors).name}: {size:,} vectors of width {width}"
                notes.append(f"{sizes}; {covered:.1%} of the tokens in training have one")
            notes.extend(untrained(loaded))
        self.splits = loaded.splits
        say(*notes, *(f"{name}: {self.summarize(part)}" for name, part in self.splits.items()))

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled batches of the training split."""
        trainer: Any = self.trainer
        order: dict[str, Any] = {"shuffle": True, "noise": self.length_noise}
        order["window"] = trainer.accumulate_grad_batches
        order["same"] = trainer.overfit_batches > 0
        self._train_loader = self._loader("train", self.batch_tokens, **order)
        if self._progress:
            self._train_loader.resume(self._progress)
        return self._train_loader

    def end_epoch(self) -> None:
        """Mark the epoch as finished; Lightning has no such hook for data modules."""
        assert self._train_loader is not None
        self._train_loader.end_epoch()

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of the content of each split and of the file of word vectors, after `setup`."""
        hashes = {name: corpus.fingerprint for name, corpus in self.splits.items()}
        if self.vectors:
            with open(self.vectors, "rb") as stream:
                hashes["vectors"] = hashlib.file_digest(stream, "sha256").hexdigest()[:32]
        return hashes

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the batches already trained on, and the fingerprint of the data."""
        if self._train_loader is None:
            return {}
        return {**self._train_loader.state(), "fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the batches already trained on.

        Raises:
            UsageError: The data has changed since the run began.
        """
        before = state_dict.get("fingerprint", {})
        if self._stage() == "fit" and before and before != self.fingerprint:
            now = self.fingerprint
            names = (name for name in {**before, **now} if before.get(name) != now.get(name))
            wrong = f"{self.corpus_name}: {', '.join(names)} data changed since this run began"
            raise UsageError(f"{wrong}: restore it, or start a new run with --init_from")
        self._progress = state_dict
        if self._train_loader is not None:  # sharded strategies make the loader first
            self._train_loader.resume(state_dict)

    def val_dataloader(self) -> BatchLoader:
        """Return batches of the validation split."""
        return self._loader("validation", self.eval_batch_tokens)

    def test_dataloader(self) -> BatchLoader:
        """Return batches of the test split."""
        return self._loader("test", self.eval_batch_tokens)

    def predict_dataloader(self) -> BatchLoader:
        """Return batches of the texts to predict."""
        return self._loader("predict", self.eval_batch_tokens)

    def _loader(self, split: str, budget: int, **order: Any) -> BatchLoader:
        assert self.trainer is not None
        data = Encoded(self.splits[split], self.vocabulary)
        order |= {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return BatchLoader(data, budget, seed=self.seed, **order)

    def _stage(self) -> str:
        state = self.trainer.state.fn if self.trainer is not None else None
        return state.value if state else "fit"
