"""Corpora for tagging: found, read, converted, cached, and cut into batches."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np

from residense.data.batches import BatchLoader, Encoded
from residense.data.cache import Arrays, cached, fingerprint, pack_strings, unpack_strings
from residense.data.corpus import Corpus
from residense.data.files import decode_lines, find_splits, read_lines
from residense.data.readers import CorpusError, Reading, read, read_dataset
from residense.data.schemes import detect, spans
from residense.data.synthetic import Synthetic
from residense.data.vectors import Vectors, load_vectors
from residense.data.vocabulary import Vocabulary
from residense.messages import say
from residense.predictions import Text

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES"]
Column = int | str | None
HUB = "hf:"


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
        self.path, self.text, self.synthetic, self.files = path, text, synthetic, files
        self.token_column, self.tag_column, self.encoding, self.repair = token_column, tag_column, encoding, repair
        self.scheme: str = scheme
        self.split, self.split_seed = split, split_seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.vectors, self.min_frequency, self.max_length = vectors, min_frequency, max_length
        self.batch_tokens, self.eval_batch_tokens = batch_tokens, eval_batch_tokens
        self.splits: dict[str, Corpus] = {}
        self.vocabulary: Vocabulary | None = None
        self.known: Vocabulary | None = None  # words and characters to keep, of a model that is trained further
        self.vector_matrix: np.ndarray | None = None
        self.texts: list[Text] = []
        self._train_loader: BatchLoader | None = None
        self._progress: dict[str, int] = {}

    # -- reading ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Fill the cache, on one process of each node."""
        self._check()
        if self._stage() == "predict":
            return
        self._load()
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
            self.texts = list(self._texts(self.vocabulary.unit))
            pairs = ((text.tokens, []) for text in self.texts)
            self.splits = {"predict": Corpus.build(pairs, "none", self.max_length)}
        elif not self.splits:
            self._load_splits(stage)

    def _load_splits(self, stage: str) -> None:
        if self.vocabulary is not None:
            self.scheme = self.vocabulary.scheme
        self.splits, scheme, notes = self._load()
        if self.split is not None:
            self.splits = self._complete(notes, self.split)
        elif [*self.splits] == ["train"] and stage != "fit":  # one file is all there is: it is what is asked for
            self.splits = {{"validate": "validation"}.get(stage, stage): self.splits["train"]}
        needed = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}[stage]
        for name in needed:
            if name not in self.splits:
                raise ValueError(f"{self.path}: no {name} split, only {', '.join(self.splits)}; see --data.split")
        if self.vocabulary is None:
            self.vocabulary = self._build_vocabulary(scheme)
        say(*notes, *self._summary())

    def _load(self) -> tuple[dict[str, Corpus], str, list[str]]:
        """All splits, the scheme they are written in for training, and what was inferred; from the cache if there."""
        files = self._files()
        if self.path is not None and not files:
            return self._from_arrays(self._read())  # a hub id: `datasets` has a cache of its own
        options = [self.token_column, self.tag_column, self.encoding, self.repair, self.scheme, self.max_length]
        if self.path is None:
            options += [asdict(self.synthetic), version("faker")]
            files = {path.name: path for path in sorted(Path(__file__).parent.glob("*.txt"))}
        key = fingerprint(files.values(), [*files, *options])
        return self._from_arrays(cached(key, self._read))

    def _files(self) -> dict[str, Path]:
        if self.path is None:
            return {}
        return {} if self.path.startswith(HUB) else find_splits(Path(self.path), self.files)

    def _read(self) -> Arrays:
        if self.path is None:
            splits = {name: [*pairs] for name, pairs in self.synthetic.splits().items()}
            notes = [f"{self.synthetic}: generated sentences with personal data, not a real corpus"]
        else:
            readings = self._readings()
            notes = [note for reading in readings.values() for note in _notes(reading)]
            splits = {name: [(s.tokens, s.tags) for s in r.sentences] for name, r in readings.items()}
        found = detect(tags for pairs in splits.values() for _, tags in pairs)
        scheme = "none" if found == "none" else self.scheme
        notes.append("tags are plain labels" if found == "none" else f"tags are {found}, trained as {scheme}")
        arrays: Arrays = {"notes": pack_strings(notes), "scheme": pack_strings([scheme])}
        for name, pairs in splits.items():
            corpus = Corpus.build(pairs, scheme, self.max_length)
            arrays |= {f"{name}/{key}": value for key, value in corpus.arrays().items()}
        return arrays

    def _readings(self) -> dict[str, Reading]:
        files = self._files()
        if not files:
            return read_dataset(str(self.path).removeprefix(HUB))
        options = (self.token_column, self.tag_column, self.encoding, self.repair)
        return {name: read(file, *options) for name, file in files.items()}

    @staticmethod
    def _from_arrays(arrays: Arrays) -> tuple[dict[str, Corpus], str, list[str]]:
        names = dict.fromkeys(key.split("/")[0] for key in arrays if "/" in key)
        splits = {
            name: Corpus.from_arrays({k.split("/")[1]: v for k, v in arrays.items() if k.startswith(f"{name}/")})
            for name in names
        }
        return splits, unpack_strings(arrays["scheme"])[0], unpack_strings(arrays["notes"])

    def _complete(self, notes: list[str], split: tuple[float, float, float]) -> dict[str, Corpus]:
        """Make a validation split, and a test split where there is one file only, by seed."""
        if "validation" in self.splits or "train" not in self.splits:
            return self.splits
        _, validation, test = split
        shares = {"validation": validation} | ({"test": test} if len(self.splits) == 1 else {})
        corpus = self.splits["train"]
        order = np.random.default_rng(self.split_seed).permutation(corpus.num_documents)
        made, start = {}, 0
        for name, share in shares.items():
            end = start + max(1, round(share * corpus.num_documents))
            made[name] = corpus.select(order[start:end])
            start = end
        if start >= corpus.num_documents:
            raise ValueError(
                f"{self.path}: {corpus.num_documents} sentences are too few to split; add files or sentences"
            )
        notes.append(f"{' and '.join(made)} split off train by seed {self.split_seed}")
        return {"train": corpus.select(order[start:]), **made, **{k: v for k, v in self.splits.items() if k != "train"}}

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

    def _texts(self, unit: str) -> Iterator[Text]:
        if self.text is not None:
            yield from (Text.raw(text, unit) for text in self.text)
        elif self.path in (None, "-"):
            lines, _ = decode_lines(sys.stdin.buffer.read(), Path("standard input"), self.encoding, self.repair)
            yield from _raw(lines, unit)
        elif Path(self.path).name.removesuffix(".gz").endswith(".txt"):
            lines, _ = read_lines(Path(self.path), self.encoding, self.repair)
            yield from _raw(lines, unit)
        else:
            path = Path(self.path)
            if not path.is_file():
                raise CorpusError(path, None, "no such file", fix="give --data.path a file or --data.text a text")
            reading = read(path, self.token_column, self.tag_column, self.encoding, self.repair, labelled=False)
            for sentence in reading.sentences:
                if sentence.text is not None and sentence.offsets is not None:
                    yield Text(sentence.text, sentence.offsets)
                else:
                    yield Text.joined(sentence.tokens, unit)

    # -- batches ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of the training split."""
        self._train_loader = self._loader("train", self.batch_tokens, shuffle=True)
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

    def _loader(self, split: str, budget: int, shuffle: bool = False) -> BatchLoader:
        assert self.vocabulary is not None and self.trainer is not None
        data = Encoded(self.splits[split], self.vocabulary)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return BatchLoader(data, budget, shuffle, self.seed, rank, world_size)

    def _task(self) -> Any:
        return self.trainer.lightning_module if self.trainer is not None else None

    def _stage(self) -> str:
        return self.trainer.state.fn.value if self.trainer is not None and self.trainer.state.fn else "fit"


def _raw(lines: list[str], unit: str) -> Iterator[Text]:
    """One text a line; the last line ends, it does not begin another."""
    yield from (Text.raw(line, unit) for line in (lines[:-1] if lines[-1] == "" else lines))


def _notes(reading: Reading) -> list[str]:
    repairs = [f"{reading.path.name}: repaired {count}: {what}" for what, count in reading.repairs.items()]
    return [*reading.notes, *repairs]
