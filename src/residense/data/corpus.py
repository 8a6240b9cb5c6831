"""A corpus as flat integer arrays, from which a batch is gathered by one indexing operation.

Distinct tokens are stored once, as `forms`; a token is an index into them.

Shapes: N tokens, S sentences, T source texts, C classes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from residense.data.cache import Values, pack
from residense.tags import Span, encode, spans, split_tag
from residense.tasks.predictions import Text

SENTENCE_ENDS = frozenset(".!?。！？")


@dataclass(frozen=True)
class Corpus:
    """Sentences of tokens with tags, or texts with classes, or both.

    Attributes:
        forms: Distinct tokens.
        labels: Distinct tags.
        tokens: [N] indices into `forms`.
        tags: [N] indices into `labels`; all zero if the corpus has no tags.
        offsets: [S+1] index of the first token of each sentence.
        document: [S] index of the source text that each sentence is, or is a part of.
        raw: The source texts, if the corpus has them; else empty.
        places: [N, 2] start and end of each token in its source text; [0, 2] without texts.
        classes: Distinct classes.
        targets: [T, C] True for the classes of each text; [0, 0] if the corpus has none.
    """

    forms: list[str]
    labels: list[str]
    tokens: np.ndarray
    tags: np.ndarray
    offsets: np.ndarray
    document: np.ndarray
    raw: list[str]
    places: np.ndarray
    classes: list[str]
    targets: np.ndarray

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content."""
        digest = hashlib.sha256()
        for name, value in sorted(self.values().items()):
            digest.update(name.encode() + pack(value).tobytes())
        return digest.hexdigest()[:32]

    @classmethod
    def build(
        cls,
        sentences: Iterable[tuple[Sequence[str], Sequence[str]]],
        scheme: str,
        max_length: int,
        texts: Sequence[Text] = (),
        classes: Sequence[Sequence[str]] = (),
    ) -> "Corpus":
        """Make a corpus from sentences.

        Args:
            sentences: Pairs of tokens and tags.
            scheme: Tag scheme to convert the tags to; "none" for plain labels.
            max_length: Most tokens of a sentence; longer ones are split.
            texts: The text of each sentence, if there are texts.
            classes: The classes of each sentence, if there are classes.
        """
        assert max_length > 0
        forms: dict[str, int] = {}
        labels: dict[str, int] = {}
        token_ids: list[int] = []
        tag_ids: list[int] = []
        offsets = [0]
        document = []
        for number, (tokens, tags) in enumerate(sentences):
            if not tokens:
                continue
            found: list[Span] = []
            if scheme != "none" and tags:
                found = spans(tags)
                tags = encode(found, len(tags), scheme)
            cuts = _cuts(tokens, found, max_length)
            offsets += [len(token_ids) + cut for cut in cuts]
            document += [number] * len(cuts)
            token_ids += [forms.setdefault(token, len(forms)) for token in tokens]
            tag_ids += [labels.setdefault(tag, len(labels)) for tag in tags] or [0] * len(tokens)
        return cls(
            list(forms),
            list(labels),
            np.array(token_ids, np.int32),
            np.array(tag_ids, np.int32),
            np.array(offsets, np.int64),
            np.array(document, np.int32),
            [text.text for text in texts],
            np.array([place for text in texts for place in text.offsets], np.int32).reshape(-1, 2),
            *class_targets(classes),
        )

    def __len__(self) -> int:
        return len(self.document)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each sentence: [S]."""
        return np.diff(self.offsets)

    @property
    def num_documents(self) -> int:
        """Number of source texts."""
        return len(self.raw) or (int(self.document[-1]) + 1 if len(self) else 0)

    def select(self, documents: np.ndarray) -> "Corpus":
        """Return the corpus of the given source texts, in the order of the source."""
        keep = np.isin(self.document, documents)
        mask = np.repeat(keep, self.lengths)
        kept, renumbered = np.unique(self.document[keep], return_inverse=True)
        return replace(
            self,
            tokens=self.tokens[mask],
            tags=self.tags[mask],
            offsets=np.concatenate(([0], np.cumsum(self.lengths[keep]))),
            document=renumbered.astype(np.int32),
            raw=[self.raw[i] for i in kept] if self.raw else [],
            places=self.places[mask] if self.raw else self.places,
            targets=self.targets[kept] if len(self.targets) else self.targets,
        )

    def document_tokens(self) -> list[list[str]]:
        """Return the tokens of each source text."""
        return [[self.forms[t] for t in self.tokens[a:b]] for a, b in pairwise(self._bounds())]

    def document_tags(self) -> list[list[str]]:
        """Return the tags of each source text."""
        return [[self.labels[t] for t in self.tags[a:b]] for a, b in pairwise(self._bounds())]

    def document_classes(self) -> list[list[str]]:
        """Return the classes of each source text."""
        return [[self.classes[i] for i in np.flatnonzero(row)] for row in self.targets]

    def document_texts(self, unit: str) -> list[Text]:
        """Return the source texts, or their tokens joined if the corpus has no texts."""
        if not self.raw:
            return [Text.joined(tokens, unit) for tokens in self.document_tokens()]
        bounds = pairwise(self._bounds())
        offsets = [[*map(tuple, self.places[a:b].tolist())] for a, b in bounds]
        return [*map(Text, self.raw, offsets)]

    def _bounds(self) -> np.ndarray:
        first = np.searchsorted(self.document, np.arange(self.num_documents + 1))
        return self.offsets[first]

    def label_counts(self, scheme: str) -> dict[str, int]:
        """Count the texts of each class and the tokens of each entity type, or of each plain tag."""
        counts = Counter(dict(zip(self.classes, self.targets.sum(0).tolist(), strict=True)))
        tokens = np.bincount(self.tags, minlength=len(self.labels)).tolist()
        for label, count in zip(self.labels, tokens, strict=False):  # no labels: all tags are 0
            counts[label if scheme == "none" else split_tag(label)[1]] += count
        return {label: count for label, count in counts.items() if label and count}

    def values(self) -> Values:
        """Return the attributes by name; `Corpus(**values)` restores the corpus."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def class_targets(classes: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return the `classes` and `targets` of a corpus from the classes of each text."""
    names = sorted({name for row in classes for name in row})
    places = {name: i for i, name in enumerate(names)}
    targets = np.zeros((len(classes), len(names)), bool)
    for row, given in zip(targets, classes, strict=True):
        row[[places[name] for name in given]] = True
    return names, targets


def _cuts(tokens: Sequence[str], found: Sequence[Span], limit: int) -> list[int]:
    """Return the ends of the parts that a sentence is split into, after a full stop if possible.

    A part is longer than the limit rather than end inside a span or between adjacent spans, which
    IOB1 would join.
    """
    cuts = []
    length = len(tokens)
    if length <= limit:
        return [length]
    joints = {span.end for span in found} & {span.start for span in found}
    inside = joints.union(*(range(span.start + 1, span.end) for span in found))
    start = 0
    while length - start > limit:
        places = [t for t in range(start + 1, start + limit + 1) if t not in inside]
        stops = [t for t in places if tokens[t - 1] in SENTENCE_ENDS and t > start + limit // 2]
        beyond = next((t for t in range(start + limit, length) if t not in inside), length)
        start = (stops or places or [beyond])[-1]
        cuts.append(start)
    return cuts if start == length else [*cuts, length]
