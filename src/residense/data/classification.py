"""Corpora for text classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from residense.data.corpus import Corpus
from residense.data.module import TextDataModule
from residense.data.partition import fold
from residense.data.readers.file import Column, Example, File
from residense.data.source import Loaded, Splits
from residense.data.synthetic_texts import SyntheticTexts
from residense.data.units import Truncate, Unit, Units, kept, subword_tokenizer
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.messages import listed, say
from residense.settings.bounds import Count, Positive
from residense.tasks.predictions import Text

_FEW_LABELS = 100  # always allowed
_MOST_LABELS = 0.4  # times the number of texts
_LARGEST_TABLE = 10**9  # bytes of the array [texts, labels]


class ClassificationDataModule(TextDataModule):
    """Texts with one class each, or with any number of classes.

    The other options are those of `TextDataModule`.

    Args:
        path: Folder with train, dev and test files or class folders, one file, or hf:ID for a data
            set of the Hugging Face hub; for `predict` a file, where .txt has one text on each line.
            Null for the synthetic corpus, or for standard input in `predict`. In Python also the
            splits themselves; see `TextDataModule`.
        synthetic: The synthetic corpus.
        text_column: Column of the texts, by position or by name; null for the one named text,
            sentence, review, ...
        label_column: Column of the labels, by position or by name; null for the one named label,
            class, category, ...
        label_separator: Separator of the labels if a text has any number of them; null for one.
        unit: Unit of a token: `word` (a character in Chinese and Japanese), `char`, or `subword`.
        subwords: For the unit `subword`: number of subwords to train on the training texts, or a
            tokenizer.json.
        truncate: Tokens of a long text that are kept: the first (`head`), or a quarter from the
            head and the rest from the tail.
        folds: Number of folds for cross-validation, stratified by class; 0 for none.
        fold: Index of the fold to test on; the next one is for validation.
    """

    def __init__(
        self,
        path: str | Splits | None = None,
        synthetic: SyntheticTexts = SyntheticTexts(),
        text_column: Column = None,
        label_column: Column = None,
        label_separator: str | None = None,
        unit: Unit = "word",
        subwords: Positive | str = 4000,
        truncate: Truncate = "head",
        folds: Count = 0,
        fold: Count = 0,
        **options: Any,
    ):
        reading = File(Path(), "texts", text_column, label_column)
        reading.label_separator = label_separator
        super().__init__(path, synthetic, reading, **options)
        self.unit: str = unit
        self.subwords = subwords
        self.truncate = truncate
        self.multi_label = label_separator is not None
        self.folds = folds
        self.fold = fold

    def check(self) -> None:
        super().check()
        if self.source.options.label_separator == "":
            raise UsageError("data.label_separator must not be empty")
        if self.folds and not self.fold < self.folds >= 3:
            wanted = "data.fold must be in 0 .. folds - 1, and data.folds at least 3"
            raise UsageError(f"{wanted}; got {self.fold} of {self.folds}")

    def load(self, vocabulary: Vocabulary | None) -> Loaded:
        unit = vocabulary.unit if vocabulary else self.unit
        state = vocabulary.subwords if vocabulary else ""

        def build(splits: dict[str, list[Example]], notes: list[str]) -> Loaded:
            self._refuse_many_labels(splits)
            subwords = state
            if unit == "subword" and not subwords:
                texts = (str(example.text) for example in next(iter(splits.values())))
                subwords = subword_tokenizer(texts, self.subwords)
            units = Units(unit, subwords)
            corpora = {
                name: self._corpus(name, part, units, notes) for name, part in splits.items()
            }
            return Loaded(corpora, notes, unit=unit, subwords=subwords)

        key = [unit, state, self.subwords, self.max_length, self.truncate]
        loaded = self.source.load(build, key, [Path(str(self.subwords))])
        return fold(loaded, self.folds, self.fold, self.split_seed) if self.folds else loaded

    def _refuse_many_labels(self, splits: dict[str, list[Example]]) -> None:
        """Raise if labels hardly repeat: the column is wrong, and [texts, labels] would be huge."""
        labels = {label for part in splits.values() for example in part for label in example.labels}
        texts = sum(map(len, splits.values()))
        if len(labels) > min(max(_FEW_LABELS, _MOST_LABELS * texts), _LARGEST_TABLE / texts):
            wrong = f"{len(labels):,} different labels for {texts:,} texts are too many for classes"
            fix = "choose another column with --data.label_column"
            raise UsageError(f"{self.corpus_name}: {wrong}; {fix}")

    def _corpus(
        self, name: str, examples: Sequence[Example], units: Units, notes: list[str]
    ) -> Corpus:
        """Split texts into tokens and truncate long ones, with a note on how many."""
        sentences = []
        texts = []
        long = 0
        for example in examples:
            text = str(example.text)
            tokens, places = units.cut(text)
            here = kept(len(tokens), self.max_length, self.truncate)
            long += len(here) < len(tokens)
            sentences.append(([tokens[i] for i in here] or [""], ()))
            texts.append(Text(text, [places[i] for i in here] or [(0, 0)]))
        labels = [example.labels for example in examples]
        if long:
            fraction = f"{name}: {100 * long / len(texts):.1f} % of the texts"
            limit = f"{self.max_length} tokens ({self.truncate} is kept)"
            notes.append(f"{fraction} are cut to {limit}")
        return Corpus.build(sentences, "none", self.max_length, texts, labels)

    def read_texts(self, vocabulary: Vocabulary) -> Corpus:
        units = Units(vocabulary.unit, vocabulary.subwords)
        notes: list[str] = []
        corpus = self._corpus("predict", self.source.unlabeled(self.text), units, notes)
        say(*notes)
        return corpus

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        options = (self.min_frequency, vectors, loaded.unit, loaded.subwords)
        built = Vocabulary.build(loaded.splits["train"], [], "none", *options)
        built = built.with_classes(loaded.splits, self.multi_label)
        if len(built.classes) < 2:
            found = f"only one class, {listed(built.classes)}"
            raise UsageError(f"{self.corpus_name}: {found}; check --data.label_column")
        return built

    def summarize(self, corpus: Corpus) -> str:
        counts = corpus.targets.sum(0)
        order = np.argsort(-counts, kind="stable")
        shown = listed(f"{corpus.classes[i]} {counts[i]:,}" for i in order)
        sizes = f"{corpus.num_documents:,} texts, {len(corpus.tokens):,} tokens"
        return f"{sizes}, {len(order)} classes: {shown}"
