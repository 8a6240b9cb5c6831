"""Corpora with slots and intents: a tag for each token and a class for each sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from residense.data.corpus import Corpus, class_targets
from residense.data.readers import read
from residense.data.readers.file import File
from residense.data.source import Loaded
from residense.data.tagging import TaggingDataModule
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.tags import spans

WHOLE = 10**6  # tokens: a sentence has one intent and is not split


class SlotsDataModule(TaggingDataModule):
    """Sentences with tagged tokens (slots) and a class each (intent).

    The other options are those of `TaggingDataModule`. `path` is a folder with two files for each split, with the same
    sentences: columns of tokens and tags, and a table of texts and their intents. In the synthetic corpus the intent
    is the type of the first entity.

    Args:
        files: Glob of the files with slots.
        intent_files: Glob of the files with intents.
        sentence_column: Column of the sentences in the files with intents, by position or by name.
        intent_column: Column of the intents, likewise.
        label_separator: What separates the intents of a sentence with any number of them; null if it has one.
    """

    def __init__(
        self,
        files: str | None = "*.slots.*",
        intent_files: str | None = "*.intent.*",
        sentence_column: int | str = 1,
        intent_column: int | str = 0,
        label_separator: str | None = None,
        **options: Any,
    ):
        super().__init__(files=files, max_length=WHOLE, **options)
        self.label_separator = label_separator
        reading = File(Path(), "texts", sentence_column, intent_column)
        reading.encoding = self.source.options.encoding
        reading.repair = self.source.options.repair
        reading.label_separator = label_separator
        self.intents = replace(self.source, pattern=intent_files, options=reading)

    def load(self, vocabulary: Vocabulary | None) -> Loaded:
        loaded = super().load(vocabulary)
        files = {} if self.path is None else self.intents.files()
        for name, corpus in loaded.splits.items():
            if self.path is not None and name not in files:
                wrong = f"{self.corpus_name}: slots but no intents for {name}"
                raise UsageError(f"{wrong}; check --data.intent_files")
            given = _classes(files[name], corpus) if files else _types_of_first(corpus)
            classes, targets = class_targets(given)
            loaded.splits[name] = replace(corpus, classes=classes, targets=targets)
        return loaded

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        built = super().build_vocabulary(loaded, vectors)
        return built.with_classes(loaded.splits, multi_label=self.label_separator is not None)

    def summarize(self, corpus: Corpus) -> str:
        return f"{super().summarize(corpus)}, {len(corpus.classes)} intents"


def _classes(file: File, corpus: Corpus) -> list[tuple[str, ...]]:
    """Return the intents of the sentences of a corpus.

    Raises:
        CorpusError: The file holds other sentences.
    """
    examples = read(file)
    fix = "both files must hold the same sentences in one order; see --data.intent_files"
    sentences = corpus.document_tokens()
    for example, tokens in zip(examples, sentences, strict=False):
        if str(example.text).split() != tokens:
            wrong = f"not the sentence of the file with slots, {' '.join(tokens)!r}"
            raise file.error(example.line, wrong, example.text, fix)
    if len(examples) != len(sentences):
        wrong = f"{len(examples)} intents for {len(sentences)} sentences with slots"
        raise file.error(None, wrong, None, fix)
    return [example.labels for example in examples]


def _types_of_first(corpus: Corpus) -> list[tuple[str, ...]]:
    found = [spans(tags) for tags in corpus.document_tags()]
    return [(min(here).type if here else "NOTHING",) for here in found]
