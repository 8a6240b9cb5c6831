"""Corpora for tagging."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from residense.data.corpus import Corpus
from residense.data.module import TextDataModule
from residense.data.readers.file import Column, Example, File
from residense.data.source import Loaded, Splits
from residense.data.synthetic import Synthetic
from residense.data.units import subword_tokenizer
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.messages import listed
from residense.settings.bounds import Positive
from residense.tags import detect, spans
from residense.tasks.predictions import Text

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES", "none"]


class TaggingDataModule(TextDataModule):
    """Sentences of tokens with tags: named entities, slots, parts of speech.

    The other options are those of `TextDataModule`.

    Args:
        path: Folder with train, dev and test files, one file, or hf:ID for a data set of the
            Hugging Face hub; for `predict` a file, where .txt has one text on each line. Null for
            the synthetic corpus, or for standard input in `predict`. In Python also the splits
            themselves; see `TextDataModule`.
        synthetic: The synthetic corpus.
        token_column: Column of the tokens, by position or by name; null for the first.
        tag_column: Column of the tags, by position or by name; null for the last.
        scheme: Tag scheme to train with; the tags of the files are converted to it. `none` requires
            plain labels, such as parts of speech, and refuses tags of a scheme.
        subwords: Subwords instead of the characters of a word: their number, to train them on the
            training words, or a tokenizer.json; null for characters.
    """

    def __init__(
        self,
        path: str | Splits | None = None,
        synthetic: Synthetic = Synthetic(),
        token_column: Column = None,
        tag_column: Column = None,
        scheme: Scheme = "IOBES",
        subwords: Positive | str | None = None,
        **options: Any,
    ):
        reading = File(Path(), "tags", token_column, tag_column)
        super().__init__(path, synthetic, reading, **options)
        self.scheme: str = scheme
        self.subwords = subwords

    def load(self, vocabulary: Vocabulary | None) -> Loaded:
        scheme = vocabulary.scheme if vocabulary else self.scheme

        def build(splits: dict[str, list[Example]], notes: list[str]) -> Loaded:
            tags = [example.tags for examples in splits.values() for example in examples]
            try:
                found = detect(tags)
            except ValueError as error:
                raise UsageError(f"{self.corpus_name}: {error}") from error
            if scheme == "none" and found != "none":
                shown = listed(sorted({tag for row in tags for tag in row} - {"O"}), 3)
                wrong = f"{found} tags ({shown}) instead of plain labels"
                fix = "choose another column with --data.tag_column"
                raise UsageError(f"{self.corpus_name}: {wrong}; {fix}")
            target = "none" if found == "none" else scheme
            kind = "plain labels" if target == "none" else f"{found}, converted to {target}"
            corpora = {name: self._corpus(part, target) for name, part in splits.items()}
            return Loaded(corpora, [*notes, f"tags are {kind}"], target)

        return self.source.load(build, [scheme, self.max_length])

    def _corpus(self, examples: Sequence[Example], scheme: str) -> Corpus:
        pairs = ((example.tokens, example.tags) for example in examples)
        texts = [Text(e.text, e.offsets) for e in examples if e.text is not None and e.offsets]
        has_texts = len(texts) == len(examples)
        return Corpus.build(pairs, scheme, self.max_length, texts if has_texts else [])

    def read_texts(self, vocabulary: Vocabulary) -> Corpus:
        texts = [_text(e, vocabulary.unit) for e in self.source.unlabeled(self.text)]
        return Corpus.build(((text.tokens, []) for text in texts), "none", self.max_length, texts)

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        labels = {label for corpus in loaded.splits.values() for label in corpus.labels}
        if labels <= {"O"}:
            raise UsageError(f"{self.corpus_name}: all tags are O; check --data.tag_column")
        train = loaded.splits["train"]
        subwords = ""
        if self.subwords is not None:
            subwords = subword_tokenizer(map(" ".join, train.document_tokens()), self.subwords)
        options = (loaded.scheme, self.min_frequency, vectors)
        return Vocabulary.build(train, labels, *options, subwords=subwords)

    def summarize(self, corpus: Corpus) -> str:
        counts = f"{corpus.num_documents:,} sentences, {len(corpus.tokens):,} tokens"
        if self.vocabulary.scheme != "none":
            counts += f", {sum(len(spans(tags)) for tags in corpus.document_tags()):,} entities"
        return counts


def _text(example: Example, unit: str) -> Text:
    """Return the text of an example with the offsets of its tokens."""
    if example.text is None:
        return Text.joined(example.tokens, unit)
    if example.offsets is None:
        return Text.raw(example.text, unit)
    return Text(example.text, example.offsets)
