"""Map tokens, tags and classes to ids. The vocabulary of a model is stored in its checkpoint."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from residense.data.corpus import Corpus
from residense.data.units import Units
from residense.data.vectors import Vectors
from residense.errors import UsageError
from residense.messages import listed
from residense.nn.embeddings import PADDING, SPECIAL, UNKNOWN, TableSizes
from residense.tags import Span, encode, spans, split_tag

MAX_CHARACTERS = 32  # or subwords of a word; longer words lose their middle


@dataclass
class Vocabulary:
    """Words, characters, labels and classes of a task.

    Args:
        words: Known words; ids begin at 2, after padding and unknown.
        chars: Known characters, likewise; or the subwords that replace them.
        labels: Tags, in the order of their ids.
        scheme: Tag scheme of the labels, or none.
        unit: Unit of a token: `word`, `char`, or `subword`.
        vector_dim: Width of the pretrained vectors of the first words, 0 without.
        num_vectors: Number of words, the first ones, with a pretrained vector.
        entities: Training entities, each with its most frequent type; see `entity_key`.
        classes: Classes of texts, in the order of their ids.
        multi_label: Whether a text may have any number of classes instead of one.
        class_counts: Number of training texts of each class.
        subwords: State of a tokenizer; of texts if the unit is `subword`, else of words.
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
        vectors: Vectors = Vectors([], np.zeros((0, 0), np.float32)),
        unit: str | None = None,
        subwords: str = "",
    ) -> "Vocabulary":
        """Make a vocabulary of a training corpus and word vectors, most frequent words first.

        Args:
            train: The training corpus.
            labels: Tags of the corpus; those of a scheme are completed for each type.
            scheme: Tag scheme of the labels, or "none".
            min_frequency: How often a word without a vector must occur.
            vectors: Pretrained word vectors.
            unit: Unit of a token; None for `char` where tokens are single characters, else `word`.
            subwords: State of a tokenizer.
        """
        counts = np.bincount(train.tokens, minlength=len(train.forms)).tolist()
        split = _splitter(unit, subwords)
        known = set(vectors.words)
        words: Counter[str] = Counter()
        chars: Counter[str] = Counter()
        for form, count in zip(train.forms, counts, strict=True):
            words[form if form in known else form.lower()] += count
            for char in split(form):
                chars[char] += count
        if unit is None:
            is_single = np.array([len(form) == 1 for form in train.forms], bool)
            unit = "char" if is_single[train.tokens].sum() > 0.95 * len(train.tokens) else "word"
        frequent = (w for w, n in _ranked(words) if n >= min_frequency and w not in known)
        return cls(
            words=[*vectors.words, *frequent],
            chars=[char for char, _ in _ranked(chars)],
            labels=_complete(set(labels), scheme),
            scheme=scheme,
            unit=unit,
            vector_dim=vectors.matrix.shape[1],
            num_vectors=len(vectors.words),
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
        """Return a copy with the words and characters of another vocabulary.

        If both have the same labels, they are in the order of the other one.
        """
        return replace(
            self,
            labels=known.labels if set(known.labels) == set(self.labels) else self.labels,
            words=known.words,
            chars=known.chars,
            subwords=self.subwords if self.unit == "subword" else known.subwords,
            vector_dim=known.vector_dim,
            num_vectors=known.num_vectors,
        )

    @property
    def table_sizes(self) -> TableSizes:
        """Sizes of the embedding tables."""
        sizes = (len(self.words) + SPECIAL, len(self.chars) + SPECIAL)
        return TableSizes(*sizes, self.num_vectors, self.vector_dim)

    def coverage(self, corpus: Corpus) -> float:
        """Return the fraction of the tokens that have a pretrained vector."""
        words = self.word_ids(corpus.forms)[corpus.tokens]
        return ((words >= SPECIAL) & (words < SPECIAL + self.num_vectors)).mean()

    def word_ids(self, forms: Sequence[str]) -> np.ndarray:
        """Return the ids of tokens, as written or else in lower case: int64 [len(forms)]."""
        ids = {word: i for i, word in enumerate(self.words, SPECIAL)}
        return np.array([ids.get(f, ids.get(f.lower(), UNKNOWN)) for f in forms], np.int64)

    def char_ids(self, forms: Sequence[str]) -> np.ndarray:
        """Return the ids of the characters, or subwords, of tokens: int64 [len(forms), longest]."""
        ids = {char: i for i, char in enumerate(self.chars, SPECIAL)}
        split = _splitter(self.unit, self.subwords)
        parts = [_shortened([*split(form)]) for form in forms]
        table = np.full((len(forms), max(map(len, parts), default=1) or 1), PADDING, np.int64)
        for row, form in zip(table, parts, strict=True):
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
    """Return a function that splits a word into subwords, and any other token into characters."""
    if not subwords or unit == "subword":
        return str
    units = Units("subword", subwords)
    return lambda form: units.cut(form)[0]


def _shortened(parts: list[str]) -> list[str]:
    half = MAX_CHARACTERS // 2
    return parts if len(parts) <= MAX_CHARACTERS else parts[:half] + parts[-half:]


def entity_key(tokens: Sequence[str]) -> str:
    """Return the key of an entity in `Vocabulary.entities`."""
    return "\x1f".join(tokens)


def entity_tokens(key: str) -> list[str]:
    """Return the tokens of a key."""
    return key.split("\x1f")


def _complete(labels: set[str], scheme: str) -> list[str]:
    """Return all tags of a scheme for the types among the labels, sorted, O first."""
    if scheme != "none":
        types = {split_tag(tag)[1] for tag in labels} - {""}
        adjacent = [encode([Span(0, 1, kind), Span(1, 2, kind)], 3, scheme) for kind in types]
        long = [encode([Span(0, 3, kind)], 3, scheme) for kind in types]
        labels = {"O"}.union(*adjacent, *long)
    return sorted(labels, key=lambda tag: (tag != "O", tag))


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _entity_types(train: Corpus) -> dict[str, str]:
    types: dict[str, Counter[str]] = defaultdict(Counter)
    for tokens, tags in zip(train.document_tokens(), train.document_tags(), strict=True):
        for span in spans(tags):
            types[entity_key(tokens[span.start : span.end])][span.type] += 1
    return {key: _ranked(counts)[0][0] for key, counts in types.items()}
