"""A corpus as flat integer arrays: a token takes four bytes, and a batch is one indexing operation.

Distinct tokens are stored once, as `forms`; a token is an index into them.

Shapes: N tokens, S sentences, T texts of the source, C classes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from residense.data.cache import Arrays, pack_strings, unpack_strings
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
        offsets: [S+1] position of the first token of each sentence.
        document: [S] the sentence of the source that each sentence is, or is a part of.
        raw: Text of each sentence of the source, if they have one; else empty.
        places: [N, 2] start and end of each token in that text; [0, 2] without.
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
        """Hash of everything that a model reads."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays().items()):
            digest.update(name.encode() + array.tobytes())
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
        """Return a corpus of sentences.

        Args:
            sentences: Pairs of tokens and tags.
            scheme: Tag scheme to convert the tags to; "none" for plain labels.
            max_length: Tokens; longer sentences are split.
            texts: The text of each sentence, if there is one.
            classes: The classes of each sentence, if there are any.
        """
        assert max_length > 0
        forms: dict[str, int] = {}
        labels: dict[str, int] = {}
        token_ids: list[int] = []
        tag_ids: list[int] = []
        offsets, document = [0], []
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
        """Number of sentences of the source."""
        return len(self.raw) or (int(self.document[-1]) + 1 if len(self) else 0)

    def select(self, documents: np.ndarray) -> "Corpus":
        """Return the given sentences of the source, in their order."""
        keep = np.flatnonzero(np.isin(self.document, documents))
        lengths = self.lengths[keep]
        shift = self.offsets[keep] - np.cumsum(lengths) + lengths
        places = np.repeat(shift, lengths) + np.arange(lengths.sum())
        kept, renumbered = np.unique(self.document[keep], return_inverse=True)
        return replace(
            self,
            tokens=self.tokens[places],
            tags=self.tags[places],
            offsets=np.concatenate(([0], np.cumsum(lengths))),
            document=renumbered.astype(np.int32),
            raw=[self.raw[i] for i in kept] if self.raw else [],
            places=self.places[places] if self.raw else self.places,
            targets=self.targets[kept] if len(self.targets) else self.targets,
        )

    def document_tokens(self) -> list[list[str]]:
        """Return the tokens of each sentence of the source."""
        return [[self.forms[t] for t in self.tokens[a:b]] for a, b in pairwise(self._bounds())]

    def document_texts(self, unit: str) -> list[Text]:
        """Return the text of each sentence of the source: its own, or its tokens joined."""
        if not self.raw:
            return [Text.joined(tokens, unit) for tokens in self.document_tokens()]
        bounds = pairwise(self._bounds())
        parts = [[(int(start), int(end)) for start, end in self.places[a:b]] for a, b in bounds]
        return [Text(text, offsets) for text, offsets in zip(self.raw, parts, strict=True)]

    def document_classes(self) -> list[list[str]]:
        """Return the classes of each text of the source."""
        return [[self.classes[i] for i in np.flatnonzero(row)] for row in self.targets]

    def document_tags(self) -> list[list[str]]:
        """Return the tags of each sentence of the source."""
        return [[self.labels[t] for t in self.tags[a:b]] for a, b in pairwise(self._bounds())]

    def _bounds(self) -> np.ndarray:
        first = np.searchsorted(self.document, np.arange(self.num_documents + 1))
        return self.offsets[first]

    def label_counts(self, scheme: str) -> dict[str, int]:
        """Count the texts of each class and the tokens of each entity type, or of each tag without a scheme."""
        counts = Counter(dict(zip(self.classes, self.targets.sum(0).tolist(), strict=True)))
        tokens = np.bincount(self.tags, minlength=len(self.labels)).tolist()
        for label, count in zip(
            self.labels, tokens, strict=False
        ):  # without labels, all tags are zero
            counts[label if scheme == "none" else split_tag(label)[1]] += count
        return {label: count for label, count in counts.items() if label and count}

    def arrays(self) -> Arrays:
        """Return everything as arrays, to be stored."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: pack_strings(v) if isinstance(v, list) else v for k, v in values.items()}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "Corpus":
        """Return the corpus that `arrays` came from."""
        values: dict[str, Any] = dict(arrays)
        values |= {k: unpack_strings(v) for k, v in arrays.items() if v.dtype == np.uint8}
        return cls(**values)


def class_targets(classes: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return `classes` and `targets` of a corpus whose texts have these classes."""
    names = sorted({name for row in classes for name in row})
    places = {name: i for i, name in enumerate(names)}
    targets = np.zeros((len(classes), len(names)), bool)
    for row, given in zip(targets, classes, strict=True):
        row[[places[name] for name in given]] = True
    return names, targets


def _cuts(tokens: Sequence[str], found: Sequence[Span], limit: int) -> list[int]:
    """Return the ends of the parts that a sentence is split into, after a full stop if one is in reach.

    A part is longer than the limit rather than end inside a span or between two that touch (IOB1 would join them).
    """
    cuts, length = [], len(tokens)
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
