"""Corpora for text classification: found, read, cut into tokens, cached, and cut into batches."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residense.bounds import Count, Positive
from residense.data.cache import Arrays, cached, fingerprint
from residense.data.columns import Column
from residense.data.corpus import Corpus
from residense.data.files import text_lines
from residense.data.module import TextDataModule
from residense.data.source import HUB, Loaded, fold, pack, unpack
from residense.data.synthetic_texts import SyntheticTexts
from residense.data.texts import Texts, find_texts, read_splits, read_text_dataset, read_texts
from residense.data.units import Truncate, Unit, Units, kept, subword_tokenizer
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary
from residense.messages import listed, say
from residense.predictions import Text


@dataclass
class TextSource:
    """A corpus of texts as the user names it; see `ClassificationDataModule` for the fields."""

    path: str | None
    synthetic: SyntheticTexts
    files: str | None
    text_column: Column
    label_column: Column
    label_separator: str | None
    encoding: str
    repair: bool
    subwords: int | str
    max_length: int
    truncate: Truncate

    def load(self, unit: str, subwords: str) -> Loaded:
        """All splits, cut into tokens; a tokenizer of subwords is trained unless there is one."""
        if self.path is not None and self.path.startswith(HUB):  # `datasets` has a cache of its own
            return unpack(self._read(unit, subwords))
        files = find_texts(Path(self.path), self.files) if self.path else {}
        parts = {
            name: sorted(file.rglob("*")) if file.is_dir() else [file]
            for name, file in files.items()
        }
        names = [
            (name, [str(part.relative_to(files[name].parent)) for part in found])
            for name, found in parts.items()
        ]
        options = [
            unit,
            subwords,
            {k: v for k, v in vars(self).items() if k not in ("path", "files")},
            names,
        ]
        own = [Path(self.subwords)] if isinstance(self.subwords, str) else []
        contents = [*own, *(part for found in parts.values() for part in found if part.is_file())]
        return unpack(cached(fingerprint(contents, options), lambda: self._read(unit, subwords)))

    def _read(self, unit: str, subwords: str) -> Arrays:
        readings = self._readings()
        if unit == "subword":
            subwords = subwords or subword_tokenizer(
                next(iter(readings.values())).texts, self.subwords
            )
        units, notes = (
            Units(unit, subwords),
            [note for reading in readings.values() for note in _notes(reading)],
        )
        splits, cut = {}, []
        for name, reading in readings.items():
            splits[name], share = self.corpus(reading.texts, reading.labels, units)
            cut += [f"{100 * share:.1f} % of {name}"] * (share > 0)
        if cut:
            notes.append(
                f"texts over {self.max_length} tokens are cut ({self.truncate} is kept): {', '.join(cut)}"
            )
        return pack(splits, notes, "none", unit, subwords)

    def _readings(self) -> dict[str, Texts]:
        if self.path is None:
            note = f"{self.synthetic}: generated texts, not a real corpus"
            made = {
                name: list(zip(*rows, strict=True))
                for name, rows in self.synthetic.splits().items()
            }
            splits = {
                name: Texts(Path(name), [*texts], [(label,) for label in labels], [], [], {})
                for name, (texts, labels) in made.items()
            }
            splits["train"].notes.append(note)
            return splits
        if self.path.startswith(HUB):
            options = (self.text_column, self.label_column, True, self.label_separator, self.repair)
            return read_text_dataset(self.path.removeprefix(HUB), *options)
        columns = (self.text_column, self.label_column)
        return read_splits(
            Path(self.path), self.files, *columns, self.encoding, self.repair, self.label_separator
        )

    def corpus(
        self, texts: Iterable[str], labels: list[tuple[str, ...]], units: Units
    ) -> tuple[Corpus, float]:
        """Texts cut into tokens, and the share of those that were too long."""
        shortened, long = [], 0
        for text in texts:
            tokens, places = units.cut(text)
            here = kept(len(tokens), self.max_length, self.truncate)
            long += len(here) < len(tokens)
            shortened.append(
                (
                    [tokens[i] for i in here] or [""],
                    Text(text, [places[i] for i in here] or [(0, 0)]),
                )
            )
        pairs = ((tokens, []) for tokens, _ in shortened)
        corpus = Corpus.build(
            pairs, "none", self.max_length, [text for _, text in shortened], labels
        )
        return corpus, long / max(1, len(shortened))

    def texts(self) -> list[str]:
        """Texts without labels: one a line of .txt or of standard input, or those of a corpus file."""
        lines = text_lines(self.path, self.encoding, self.repair)
        if lines is not None:
            return lines
        options = (self.text_column, None, self.encoding, self.repair, False)
        return read_texts(Path(str(self.path)), *options).texts


def _notes(reading: Texts) -> list[str]:
    return [
        *reading.notes,
        *(f"{reading.path.name}: repaired {n}: {what}" for what, n in reading.repairs.items()),
    ]


class ClassificationDataModule(TextDataModule):
    """Texts with a class each, or with any number of classes.

    Args:
        path: folder with train, dev and test files (.csv, .tsv, .txt, .jsonl, .parquet) or with folders of class
            folders, one file, or hf:ID for a data set of the Hugging Face hub; for `predict` a file, of which .txt
            holds one text a line. Null for the embedded corpus (and, for `predict`, for standard input).
        text: texts to predict, instead of a file.
        synthetic: the embedded corpus.
        files: glob that the file names in the folder must match.
        text_column: column of the texts, by index or by name; null finds it.
        label_column: column of the labels, by index or by name; null finds it.
        label_separator: what separates labels where a text has any number of them; null: it has one.
        encoding: of the files.
        repair: mend or drop malformed input, and report how often.
        unit: what a token is: `word` (a character in Chinese and Japanese), `char`, or `subword`.
        subwords: for the unit `subword`: how many to train on the texts of the training file, or a tokenizer.json.
        max_length: tokens of a text that are read.
        truncate: which ones: the first (`head`), or a quarter from the head and the rest from the tail.
        split: shares of train, validation and test where there is one file only, each class alike; null takes it whole.
        split_seed: of the splitting.
        folds: splits of all texts for cross-validation, each class alike; 0 for none.
        fold: which of them to test on; the next one is for validation.
        vectors: text file of pretrained word vectors (GloVe, word2vec, fastText), plain, .gz or .zip.
        min_frequency: how often a training token must occur to be known, unless it has a vector.
        batch_tokens: tokens of a training batch over all processes, padding included.
        eval_batch_tokens: the same where no gradient is kept.
        seed: of the order of the batches; null takes that of --seed_everything.
    """

    def __init__(
        self,
        path: str | None = None,
        text: list[str] | None = None,
        synthetic: SyntheticTexts = SyntheticTexts(),
        files: str | None = None,
        text_column: Column = None,
        label_column: Column = None,
        label_separator: str | None = None,
        encoding: str = "utf-8",
        repair: bool = False,
        unit: Unit = "word",
        subwords: Positive | str = 4000,
        max_length: Positive = 256,
        truncate: Truncate = "head",
        split: tuple[float, float, float] | None = (0.8, 0.1, 0.1),
        split_seed: Count = 0,
        folds: Count = 0,
        fold: Count = 0,
        vectors: str | None = None,
        min_frequency: Positive = 1,
        batch_tokens: Positive = 512,
        eval_batch_tokens: Positive = 4096,
        seed: Count | None = None,
    ):
        super().__init__(
            path,
            text,
            split,
            split_seed,
            vectors,
            min_frequency,
            batch_tokens,
            eval_batch_tokens,
            seed,
        )
        self.save_hyperparameters(logger=False)
        columns = (text_column, label_column, label_separator)
        cutting = (subwords, max_length, truncate)
        self.source = TextSource(path, synthetic, files, *columns, encoding, repair, *cutting)
        self.unit: str = unit
        self.multi_label, self.folds, self.fold = label_separator is not None, folds, fold

    def check(self) -> None:
        super().check()
        if self.source.label_separator == "":
            raise ValueError(
                "data.label_separator must not be empty; leave it out where each text has one label"
            )
        if self.source.max_length < 1:
            raise ValueError(
                f"data.max_length must be at least 1 token; got {self.source.max_length}"
            )
        if self.folds and not (self.folds > 2 and 0 <= self.fold < self.folds):
            raise ValueError(
                f"data.fold is one of 0 .. folds - 1, of at least 3; got {self.fold} of {self.folds}"
            )

    def load(self) -> Loaded:
        known = self.vocabulary
        loaded = (
            self.source.load(known.unit, known.subwords)
            if known
            else self.source.load(self.unit, "")
        )
        return fold(loaded, self.folds, self.fold, self.split_seed) if self.folds else loaded

    def read_texts(self, vocabulary: Vocabulary) -> Corpus:
        texts = self.text or self.source.texts()
        corpus, share = self.source.corpus(texts, [], Units(vocabulary.unit, vocabulary.subwords))
        if share:
            limit, part = self.source.max_length, self.source.truncate
            say(f"texts over {limit} tokens are cut ({part} is kept): {100 * share:.1f} %")
        return corpus

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        words, width = vectors.words, vectors.matrix.shape[1]
        options: dict[str, Any] = {"unit": loaded.unit, "subwords": loaded.subwords}
        built = Vocabulary.build(
            self.splits["train"], [], "none", self.min_frequency, words, width, **options
        )
        built = built.with_classes(self.splits, self.multi_label)
        if len(built.classes) < 2:
            raise ValueError(
                f"{self.path}: only one class, {listed(built.classes)}; check --data.label_column"
            )
        return built

    def summarise(self, corpus: Corpus) -> str:
        counts = corpus.targets.sum(0)
        order = np.argsort(-counts, kind="stable")
        shown = [f"{listed([corpus.classes[i]])} {counts[i]:,}" for i in order]
        if len(shown) > 8:
            shown = [*shown[:4], "...", *shown[-2:]]
        sizes = f"{corpus.num_documents:,} texts, {len(corpus.tokens):,} tokens"
        return f"{sizes}, {len(order)} classes: {', '.join(shown)}"
