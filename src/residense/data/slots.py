"""Corpora with slots and intents: a tag for each token and a class for each sentence."""

from dataclasses import replace
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

WHOLE = 10**6  # tokens: a sentence has one intent, so it is not split


class SlotsDataModule(TaggingDataModule):
    """Sentences with tagged tokens (slots) and one class each (intent).

    The other options are those of `TaggingDataModule`. `path` is a folder with two files for each
    split, with the same sentences: columns of tokens and tags, and a table of texts and intents. In
    the synthetic corpus the intent is the type of the first entity.

    Args:
        files: Glob of the files with slots.
        intent_files: Glob of the files with intents.
        sentence_column: Column of the sentences in the files with intents, by position or by name.
        intent_column: Column of the intents, by position or by name.
        label_separator: Separator of the intents if a sentence has any number; null for one.
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
        columns = {"text_column": sentence_column, "label_column": intent_column}
        texts: Any = {"kind": "texts", "label_separator": label_separator, **columns}
        reading = replace(self.source.options, **texts)
        self.intents = replace(self.source, pattern=intent_files, options=reading)

    def load(self, vocabulary: Vocabulary | None) -> Loaded:
        loaded = super().load(vocabulary)
        files = {} if self.path is None else self.intents.files()
        for name, corpus in loaded.splits.items():
            if self.path is not None and name not in files:
                wrong = f"no intents for the split {name}; check --data.intent_files"
                raise UsageError(f"{self.corpus_name}: {wrong}")
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
        CorpusError: The file has other sentences.
    """
    examples = read(file)
    fix = "both files must have the same sentences in the same order; see --data.intent_files"
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
