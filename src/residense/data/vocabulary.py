"""Map tokens, tags and classes to ids. A vocabulary is stored in the checkpoint and never rebuilt from other data."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from residense.data.corpus import Corpus
from residense.data.units import Units
from residense.errors import UsageError
from residense.messages import listed
from residense.nn.embeddings import PADDING, SPECIAL, UNKNOWN, TableSizes
from residense.tags import Span, encode, spans, split_tag

MAX_CHARACTERS = 32  # of a word, or subwords; longer words lose their middle


@dataclass
class Vocabulary:
    """Words, characters, labels and classes of a task.

    Args:
        words: Known words; ids begin at 2, after padding and unknown.
        chars: Known characters, likewise; or the subwords that replace them.
        labels: Tags, in the order of their ids.
        scheme: Tag scheme of the labels, or none.
        unit: What a token is: `word`, `char`, or `subword`.
        vector_dim: Width of the pretrained vectors of the first words, 0 without.
        num_vectors: Number of words, the first ones, with a pretrained vector.
        entities: Training entities, each with its most frequent type; see `entity_key`.
        classes: Classes of texts, in the order of their ids.
        multi_label: Whether a text has any number of classes, instead of one.
        class_counts: Number of training texts of each class.
        subwords: State of a tokenizer that cuts texts if the unit is `subword`, else words.
    """

    words: list[str]
    chars: list[str]
    labels: list[str]
    scheme: str
    unit: str
    vector_dim: int = 0
    num_vectors: int = 0
    entities: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    multi_label: bool = False
    class_counts: list[int] = field(default_factory=list)
    subwords: str = ""

    @classmethod
    def build(
        cls,
        train: Corpus,
        labels: Iterable[str],
        scheme: str,
        min_frequency: int,
        vector_words: Sequence[str] = (),
        vector_dim: int = 0,
        unit: str | None = None,
        subwords: str = "",
    ) -> "Vocabulary":
        """Return a vocabulary of the training corpus and the words of a vector file, most frequent first."""
        counts = np.bincount(train.tokens, minlength=len(train.forms)).tolist()
        split = _splitter(unit, subwords)
        known = set(vector_words)
        words: Counter[str] = Counter()
        chars: Counter[str] = Counter()
        single = 0
        for form, count in zip(train.forms, counts, strict=True):
            words[form if form in known else form.lower()] += count
            single += count * (len(form) == 1)
            for char in split(form):
                chars[char] += count
        frequent = (w for w, n in _ranked(words) if n >= min_frequency and w not in known)
        return cls(
            words=[*vector_words, *frequent],
            chars=[char for char, _ in _ranked(chars)],
            labels=_complete(set(labels), scheme),
            scheme=scheme,
            unit=unit or ("char" if single > 0.95 * len(train.tokens) else "word"),
            vector_dim=vector_dim,
            num_vectors=len(vector_words),
            entities=_entity_types(train) if scheme != "none" else {},
            subwords=subwords,
        )

    def with_classes(self, splits: Mapping[str, Corpus], multi_label: bool) -> "Vocabulary":
        """Return a copy with the classes of all splits, counted in the training split."""
        train = splits["train"]
        classes = sorted({name for corpus in splits.values() for name in corpus.classes})
        counts = dict(zip(train.classes, train.targets.sum(0).tolist(), strict=True))
        class_counts = [counts.get(name, 0) for name in classes]
        return replace(self, classes=classes, multi_label=multi_label, class_counts=class_counts)

    def with_words_of(self, known: "Vocabulary") -> "Vocabulary":
        """Return a copy with the words and characters of another vocabulary, and its order of equal labels."""
        return replace(
            self,
            labels=known.labels if set(known.labels) == set(self.labels) else self.labels,
            words=known.words,
            chars=known.chars,
            subwords=self.subwords if self.unit == "subword" else known.subwords,
            vector_dim=known.vector_dim,
            num_vectors=known.num_vectors,
        )

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint; `Vocabulary(**state)` restores it."""
        return asdict(self)

    @property
    def table_sizes(self) -> TableSizes:
        """Sizes of the embedding tables."""
        words = len(self.words) + SPECIAL
        chars = len(self.chars) + SPECIAL
        return TableSizes(words, chars, self.num_vectors, self.vector_dim)

    def coverage(self, corpus: Corpus) -> float:
        """Return the fraction of the tokens that have a pretrained vector."""
        words = self.word_ids(corpus.forms)[corpus.tokens]
        return ((words >= SPECIAL) & (words < SPECIAL + self.num_vectors)).mean()

    def word_ids(self, forms: Sequence[str]) -> np.ndarray:
        """Return the ids of tokens, as written or else in lower case: int64 [len(forms)]."""
        ids = {word: i for i, word in enumerate(self.words, SPECIAL)}
        return np.array([ids.get(f, ids.get(f.lower(), UNKNOWN)) for f in forms], np.int64)

    def char_ids(self, forms: Sequence[str]) -> np.ndarray:
        """Return the ids of the characters, or subwords, of tokens, padded: int64 [len(forms), longest]."""
        ids = {char: i for i, char in enumerate(self.chars, SPECIAL)}
        half = MAX_CHARACTERS // 2
        split = _splitter(self.unit, self.subwords)
        parts = [[*split(form)] for form in forms]
        short = [p if len(p) <= MAX_CHARACTERS else p[:half] + p[-half:] for p in parts]
        table = np.full((len(forms), max(map(len, short), default=1) or 1), PADDING, np.int64)
        for row, form in zip(table, short, strict=True):
            row[: len(form)] = [ids.get(char, UNKNOWN) for char in form]
        return table

    def class_ids(self, classes: Sequence[str]) -> np.ndarray:
        """Return the ids of classes: int64 [len(classes)].

        Raises:
            UsageError: The vocabulary does not have a class.
        """
        return _ids(classes, self.classes, "classes", str)

    def label_ids(self, labels: Sequence[str]) -> np.ndarray:
        """Return the ids of tags: int64 [len(labels)].

        Raises:
            UsageError: The vocabulary does not have a tag.
        """
        return _ids(labels, self.labels, "labels", lambda tag: tag.split("-", 1)[-1])


def _ids(
    names: Sequence[str], known: Sequence[str], what: str, shown: Callable[[str], str]
) -> np.ndarray:
    ids = {name: i for i, name in enumerate(known)}
    unknown = sorted({shown(name) for name in names if name not in ids})
    if unknown:
        wrong = f"the corpus has {what} that this model does not know: {listed(unknown)}"
        raise UsageError(f"{wrong}; it knows {listed(sorted({*map(shown, known)}))}")
    return np.array([ids[name] for name in names], np.int64)


def _splitter(unit: str | None, subwords: str) -> Callable[[str], Sequence[str]]:
    """Return a function that splits a token into characters or subwords; a subword is split into characters."""
    if not subwords or unit == "subword":
        return str
    units = Units("subword", subwords)
    return lambda form: units.cut(form)[0]


def entity_key(tokens: Sequence[str]) -> str:
    """Return the key of an entity in `Vocabulary.entities`."""
    return "\x1f".join(tokens)


def entity_tokens(key: str) -> list[str]:
    """Return the tokens of a key."""
    return key.split("\x1f")


def _complete(labels: set[str], scheme: str) -> list[str]:
    """Return all tags of a scheme for the types among the labels, whether or not the corpus uses each."""
    if scheme != "none":
        types = {split_tag(tag)[1] for tag in labels} - {""}
        shapes = ([(0, 1), (1, 2)], [(0, 3)])
        whole = [
            encode([Span(*ends, t) for ends in shape], 3, scheme) for t in types for shape in shapes
        ]
        labels = {"O"}.union(*whole)
    return sorted(labels, key=lambda tag: (tag != "O", tag))


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _entity_types(train: Corpus) -> dict[str, str]:
    types: dict[str, Counter[str]] = defaultdict(Counter)
    for tokens, tags in zip(train.document_tokens(), train.document_tags(), strict=True):
        for span in spans(tags):
            types[entity_key(tokens[span.start : span.end])][span.type] += 1
    return {key: _ranked(counts)[0][0] for key, counts in types.items()}
