"""Corpora for tagging: found, read, converted, cached, and cut into batches."""

import os
from typing import Any, Literal

import lightning as L
import numpy as np

from residense.data.batches import BatchLoader, Encoded
from residense.data.columns import Column
from residense.data.corpus import Corpus
from residense.data.schemes import spans
from residense.data.source import Source, complete
from residense.data.synthetic import Synthetic
from residense.data.vectors import Vectors, load_vectors
from residense.data.vocabulary import Vocabulary
from residense.messages import say
from residense.predictions import Text

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES"]
NEEDED = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}  # splits of each stage


class TaggingDataModule(L.LightningDataModule):
    """Sentences of tokens with tags: named entities, slots, parts of speech.

    Args:
        path: folder with train, dev and test files, one file, or hf:ID for a data set of the Hugging Face hub; for
            `predict` a file, of which .txt holds one text a line. Null for the embedded corpus (and, for `predict`,
            for standard input).
        text: texts to predict, instead of a file.
        synthetic: the embedded corpus.
        files: glob that the file names in the folder must match.
        token_column: column of the tokens, by index or by its name in the header; null finds it.
        tag_column: column of the tags, by index or by its name in the header; null finds it.
        encoding: of the files.
        repair: mend malformed input where that can be defended, and report how often.
        scheme: tag scheme to train in; the files' own scheme is detected and converted.
        split: shares of train, validation and test where there is one file only; null takes it whole.
        split_seed: of the splitting.
        vectors: text file of pretrained word vectors (GloVe, word2vec, fastText), plain, .gz or .zip.
        min_frequency: how often a training word must occur to be known, unless it has a vector.
        max_length: tokens; longer sentences are split and put together again in predictions.
        batch_tokens: tokens of a training batch over all processes, padding included.
        eval_batch_tokens: the same where no gradient is kept.
        seed: of the order of the batches; null takes that of --seed_everything.
    """

    def __init__(
        self,
        path: str | None = None,
        text: list[str] | None = None,
        synthetic: Synthetic = Synthetic(),
        files: str | None = None,
        token_column: Column = None,
        tag_column: Column = None,
        encoding: str = "utf-8",
        repair: bool = False,
        scheme: Scheme = "IOBES",
        split: tuple[float, float, float] | None = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        vectors: str | None = None,
        min_frequency: int = 1,
        max_length: int = 256,
        batch_tokens: int = 512,
        eval_batch_tokens: int = 4096,
        seed: int | None = None,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.path, self.text, self.synthetic = path, text, synthetic
        self.source = Source(path, synthetic, files, token_column, tag_column, encoding, repair)
        self.scheme: str = scheme
        self.split, self.split_seed = split, split_seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.vectors, self.min_frequency, self.max_length = vectors, min_frequency, max_length
        self.batch_tokens, self.eval_batch_tokens = batch_tokens, eval_batch_tokens
        self.splits: dict[str, Corpus] = {}
        self.vocabulary: Vocabulary | None = None
        self.known: Vocabulary | None = None  # words and characters to keep, of a model that is trained further
        self.vector_matrix: np.ndarray | None = None
        self._train_loader: BatchLoader | None = None
        self._progress: dict[str, int] = {}

    # -- reading ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Fill the cache, on one process of each node."""
        self._check()
        if self._stage() == "predict":
            return
        self.source.load(self.scheme, self.max_length)
        if self.vectors:
            load_vectors(self.vectors)

    def _check(self) -> None:
        """Refuse options that make no sense, before any file is touched."""
        if self.synthetic.size < 30:
            raise ValueError(f"data.synthetic.size must be at least 30 sentences; got {self.synthetic.size}")
        for name in ("min_frequency", "batch_tokens", "eval_batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1; got {getattr(self, name)}")
        if min(self.seed, self.split_seed) < 0:
            raise ValueError("data.seed and data.split_seed must not be negative")
        if self.split is not None and (min(self.split) <= 0 or sum(self.split) > 1 + 1e-6):
            raise ValueError(f"data.split holds three positive shares that sum to 1, or null; got {list(self.split)}")
        if self.text is not None and self.path is not None:
            raise ValueError("give --data.text or --data.path, not both")

    def setup(self, stage: str) -> None:
        """Read what the stage needs; the vocabulary is that of the model, or is built from the training split."""
        stage = str(getattr(stage, "value", stage))  # Lightning's stage names print as something else
        known = getattr(self._task(), "vocabulary", None)
        self.vocabulary = known or self.vocabulary
        if stage == "predict":
            assert self.vocabulary is not None, "only a trained model can predict"
            unit = self.vocabulary.unit
            texts = [Text.raw(t, unit) for t in self.text] if self.text else list(self.source.texts(unit))
            pairs = ((text.tokens, []) for text in texts)
            self.splits = {"predict": Corpus.build(pairs, "none", self.max_length, texts)}
        elif not self.splits:
            self._load_splits(stage)

    def _load_splits(self, stage: str) -> None:
        scheme = self.vocabulary.scheme if self.vocabulary else self.scheme
        loaded = self.source.load(scheme, self.max_length)
        if self.split is not None:
            loaded = complete(loaded, self.split, self.split_seed)
        elif [*loaded.splits] == ["train"] and stage != "fit":  # one file is all there is: it is what is asked for
            loaded = loaded._replace(splits={NEEDED[stage][0]: loaded.splits["train"]})
        self.splits = loaded.splits
        for name in NEEDED[stage]:
            if name not in self.splits:
                raise ValueError(f"{self.path}: no {name} split, only {', '.join(self.splits)}; see --data.split")
        if self.vocabulary is None:
            self.vocabulary = self._build_vocabulary(loaded.scheme)
        say(*loaded.notes, *self._summary())

    def _build_vocabulary(self, scheme: str) -> Vocabulary:
        labels = {label for corpus in self.splits.values() for label in corpus.labels}
        if labels <= {"O"}:
            raise ValueError(f"{self.path}: no entities, all tags are O; check --data.tag_column")
        vectors = load_vectors(self.vectors) if self.vectors else Vectors([], np.zeros((0, 0), np.float32))
        self.vector_matrix = vectors.matrix if self.vectors else None
        train = self.splits["train"]
        built = Vocabulary.build(train, labels, scheme, self.min_frequency, vectors.words, vectors.matrix.shape[1])
        return built if self.known is None else built.with_words_of(self.known)

    def _summary(self) -> list[str]:
        lines = []
        for name, corpus in self.splits.items():
            counts = f"{corpus.num_documents:,} sentences, {len(corpus.tokens):,} tokens"
            if self.vocabulary is not None and self.vocabulary.scheme != "none":
                counts += f", {sum(len(spans(tags)) for tags in corpus.document_tags()):,} entities"
            lines.append(f"{name}: {counts}")
        return lines

    # -- batches ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of the training split."""
        assert self.trainer is not None
        window = self.trainer.accumulate_grad_batches
        self._train_loader = self._loader("train", self.batch_tokens, shuffle=True, window=window)
        if self._progress:
            self._train_loader.resume(self._progress)
        return self._train_loader

    def end_epoch(self) -> None:
        """The task says so, as data modules are not told."""
        assert self._train_loader is not None
        self._train_loader.end_epoch()

    def state_dict(self) -> dict[str, int]:
        """Which batches of which epoch were trained on."""
        return self._train_loader.state() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on behind them."""
        self._progress = state_dict

    def val_dataloader(self) -> BatchLoader:
        """Batches of the validation split."""
        return self._loader("validation", self.eval_batch_tokens)

    def test_dataloader(self) -> BatchLoader:
        """Batches of the test split."""
        return self._loader("test", self.eval_batch_tokens)

    def predict_dataloader(self) -> BatchLoader:
        """Batches of the texts to predict."""
        return self._loader("predict", self.eval_batch_tokens)

    def _loader(self, split: str, budget: int, shuffle: bool = False, window: int = 1) -> BatchLoader:
        assert self.vocabulary is not None and self.trainer is not None
        data = Encoded(self.splits[split], self.vocabulary)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return BatchLoader(data, budget, shuffle, self.seed, rank, world_size, window)

    def _task(self) -> Any:
        return self.trainer.lightning_module if self.trainer is not None else None

    def _stage(self) -> str:
        return self.trainer.state.fn.value if self.trainer is not None and self.trainer.state.fn else "fit"
