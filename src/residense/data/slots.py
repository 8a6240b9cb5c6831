"""Corpora with slots and intents: a tag for each token and a class for each sentence, read from two files a split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from residense.data.corpus import Corpus, class_targets
from residense.data.sentences import CorpusError
from residense.data.source import Loaded
from residense.data.tagging import TaggingDataModule
from residense.data.texts import Texts, read_splits
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary
from residense.tags import spans

WHOLE = 10**6  # tokens: a sentence has one intent and is not split


class SlotsDataModule(TaggingDataModule):
    """Sentences with tagged tokens (slots) and a class each (intent).

    The other options are those of `TaggingDataModule`. `path` is a folder with two files for each split: columns of
    tokens and tags, and texts with their intents, in the same order. In the embedded corpus the intent is the type of
    the first entity.

    Args:
        files: glob of the files with slots.
        intent_files: glob of the files with intents.
        label_separator: what separates the intents of a sentence that may have several; null: it has one.
    """

    def __init__(
        self,
        files: str | None = "*.slots.*",
        intent_files: str | None = "*.intent.*",
        label_separator: str | None = None,
        **options: Any,
    ):
        super().__init__(files=files, max_length=WHOLE, **options)
        self.intent_files, self.label_separator = intent_files, label_separator

    def load(self) -> Loaded:
        loaded = super().load()
        if self.path is None:
            intents = {name: _types_of_first(corpus) for name, corpus in loaded.splits.items()}
        else:
            intents = self._intents(Path(self.path), loaded.splits)
        splits = {
            name: _with_classes(corpus, intents[name]) for name, corpus in loaded.splits.items()
        }
        return loaded._replace(splits=splits)

    def _intents(self, path: Path, splits: dict[str, Corpus]) -> dict[str, list[tuple[str, ...]]]:
        source = self.source
        read = read_splits(
            path,
            self.intent_files,
            None,
            None,
            source.encoding,
            source.repair,
            self.label_separator,
        )
        for split in splits:
            if split not in read:
                raise CorpusError(
                    path, None, f"slots but no intents for {split}", fix="check --data.intent_files"
                )
        return {
            split: self._of_the_same_sentences(read[split], corpus)
            for split, corpus in splits.items()
        }

    def _of_the_same_sentences(self, read: Texts, corpus: Corpus) -> list[tuple[str, ...]]:
        sentences = corpus.document_tokens()
        for line, text, tokens in zip(read.lines, read.texts, sentences, strict=False):
            if text.split() != tokens:
                wrong = f"not the sentence of the file with slots, {' '.join(tokens)!r}"
                raise CorpusError(
                    read.path, line, wrong, text, "both files hold the same sentences in one order"
                )
        if len(read.texts) != len(sentences):
            wrong = f"{len(read.texts)} intents for {len(sentences)} sentences with slots"
            raise CorpusError(
                read.path, None, wrong, fix="both files hold the same sentences in one order"
            )
        return read.labels

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        built = super().build_vocabulary(loaded, vectors)
        return built.with_classes(self.splits, multi_label=self.label_separator is not None)

    def summarise(self, corpus: Corpus) -> str:
        return f"{super().summarise(corpus)}, {len(corpus.classes)} intents"


def _types_of_first(corpus: Corpus) -> list[tuple[str, ...]]:
    found = [spans(tags) for tags in corpus.document_tags()]
    return [(min(here).type if here else "NOTHING",) for here in found]


def _with_classes(corpus: Corpus, labels: list[tuple[str, ...]]) -> Corpus:
    classes, targets = class_targets(labels)
    return replace(corpus, classes=classes, targets=targets)
