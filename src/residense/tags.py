"""Tag schemes: how a sequence of tags encodes typed spans.

Every scheme consists of four letters (begin, inside, end, single) and "O". Whether a sequence is
legal depends only on pairs of neighboring tags, where a sentence boundary counts as "O". Spans
follow conlleval (Tjong Kim Sang & De Meulder 2003, https://aclanthology.org/W03-0419), which reads
any sequence of tags, legal or not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from reprlib import repr as shortened
from typing import NamedTuple

import numpy as np

# Letters for begin, inside, end and single; the order breaks ties in `detect`.
_LETTERS = {"IOB2": "BIIB", "IOB1": "BIII", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
_ALIASES = {"BIO": "IOB2"}
# The meaning of a letter of any scheme, as a letter of IOBES.
_ROLE = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "O": "O"}

SCHEMES: tuple[str, ...] = tuple(_LETTERS)


class Span(NamedTuple):
    """An entity: tokens `start` to `end` (exclusive) and their type."""

    start: int
    end: int
    type: str


class LegalTransitions(NamedTuple):
    """Legal transitions between K tags.

    Attributes:
        follow: Whether a tag (column) may follow another (row) [K, K].
        start: Whether a tag may start a sentence [K].
        end: Whether a tag may end a sentence [K].
    """

    follow: np.ndarray
    start: np.ndarray
    end: np.ndarray


def split_tag(tag: str) -> tuple[str, str]:
    """Return the prefix and type of a tag: ("B", "PER") for "B-PER", ("O", "") for "O"."""
    prefix, _, type_ = tag.partition("-")
    return prefix, type_


def spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence by the rules of conlleval, for tags of any scheme.

    A span starts at B or S, at a change of type, and at an I or E without a span to continue; it
    ends after E or S. This is the default mode of seqeval, with L, U and M read as E, S and I.

    Args:
        tags: Tags of one sentence.
    """
    found: list[Span] = []
    unfinished = False
    for position, tag in enumerate(tags):
        role, type_ = _read(tag)
        if role != "O":
            if unfinished and role in "IE" and type_ == found[-1].type:
                found[-1] = found[-1]._replace(end=position + 1)
            else:
                found.append(Span(position, position + 1, type_))
        unfinished = role in "BI"
    return found


def encode(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Return the tags of non-overlapping spans in a scheme.

    Args:
        spans: Spans in any order.
        length: Number of tokens of the sentence.
        scheme: One of `SCHEMES`, or "BIO" for IOB2. IOB1 uses B- only if a span directly follows
            another one of the same type.
    """
    scheme = _canonical(scheme)
    begin, inside, end, single = _LETTERS[scheme]
    tags = ["O"] * length
    for span in sorted(spans):
        if not 0 <= span.start < span.end <= length or set(tags[span.start : span.end]) != {"O"}:
            raise ValueError(
                f"{span} is empty, overlaps another or leaves a sentence of {length} tokens"
            )
        letters = (
            single
            if span.end - span.start == 1
            else begin + inside * (span.end - span.start - 2) + end
        )
        if scheme == "IOB1":
            touches = span.start > 0 and tags[span.start - 1] in (
                f"B-{span.type}",
                f"I-{span.type}",
            )
            letters = ("B" if touches else "I") + letters[1:]
        tags[span.start : span.end] = [f"{letter}-{span.type}" for letter in letters]
    return tags


def convert(tags: Sequence[str], target: str) -> list[str]:
    """Convert tags of any scheme to another scheme; the spans stay the same.

    Args:
        tags: Tags of one sentence.
        target: Scheme to convert to.
    """
    return encode(spans(tags), len(tags), target)


def detect(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of a corpus, or "none" if its tags are plain labels such as NOUN.

    Among the schemes that have all prefixes of the corpus, the one with the fewest violations is
    chosen; ties go to the first of `SCHEMES`. A few illegal tags therefore do not matter, and a
    corpus without entities is IOB2.

    Args:
        sentences: Tags of each sentence.

    Raises:
        ValueError: Tags with and without a prefix are mixed, or no scheme has all prefixes.
    """
    pairs = Counter(pair for tags in sentences for pair in pairwise(("O", *tags, "O")))
    seen = {tag for _, tag in pairs if tag != "O"}
    # A prefix is one character, so "-LRB-" and "NN-SHORT" are plain labels.
    prefixed = {tag for tag in seen if tag[1:2] == "-" and len(tag) > 2}
    if seen and not prefixed:
        return "none"
    if plain := seen - prefixed:
        raise ValueError(
            f"some tags have a prefix ({_some(prefixed)}) and some have none ({_some(plain)}); "
            "write every tag but O with a prefix, or none of them"
        )
    prefixes = {tag[0] for tag in seen}
    fitting = [scheme for scheme, letters in _LETTERS.items() if prefixes <= set(letters)]
    if not fitting:
        raise ValueError(
            f"no tag scheme has all the prefixes {_some(prefixes)}, seen in the tags "
            f"{_some(prefixed)}; known schemes: {', '.join(SCHEMES)}"
        )
    violations = {
        scheme: sum(count for pair, count in pairs.items() if not _legal(*pair, scheme))
        for scheme in fitting
    }
    return min(fitting, key=violations.__getitem__)


def improper(tags: Sequence[str], scheme: str) -> list[int]:
    """Return the positions that violate a scheme.

    A position violates the scheme if its tag may not follow the previous one, or if it is the last
    position and leaves a span without its end.

    Args:
        tags: Tags of one sentence.
        scheme: Scheme of the tags; nothing violates "none".
    """
    if scheme == "none":
        return []
    scheme = _canonical(scheme)
    borders = enumerate(pairwise(("O", *tags, "O")))
    last = len(tags) - 1
    return sorted({min(position, last) for position, pair in borders if not _legal(*pair, scheme)})


def legal_transitions(labels: Sequence[str], scheme: str) -> LegalTransitions:
    """Return the legal transitions between K labels.

    Args:
        labels: Labels in the order of their ids.
        scheme: Scheme of the labels; everything is legal for "none".
    """
    size = len(labels)
    if scheme == "none":
        return LegalTransitions(
            np.ones((size, size), bool), np.ones(size, bool), np.ones(size, bool)
        )
    scheme = _canonical(scheme)
    follow = [_legal(before, after, scheme) for before in labels for after in labels]
    start = [_legal("O", label, scheme) for label in labels]
    end = [_legal(label, "O", scheme) for label in labels]
    follow = np.array(follow, bool).reshape(size, size)
    return LegalTransitions(follow, np.array(start, bool), np.array(end, bool))


def _legal(before: str, after: str, scheme: str) -> bool:
    """Return whether one tag may follow another; "O" also stands for a sentence boundary."""
    if after != "O" and after[:1] not in set(_LETTERS[scheme]):
        return False
    (role_before, type_before), (role, type_) = _read(before), _read(after)
    unfinished = role_before in "BI"
    same = unfinished and type_before == type_
    if scheme == "IOB1":
        return same or role != "B"
    if scheme == "IOB2":
        return same or role != "I"
    return same if role in "IE" else not unfinished


@lru_cache(maxsize=4096)
def _read(tag: str) -> tuple[str, str]:
    """Return the role and type of a tag; a bare "B" has the type "_", as in seqeval."""
    prefix, type_ = split_tag(tag)
    if prefix not in _ROLE:
        raise ValueError(
            f"{tag!r} is not a span tag; write O, or a prefix and a type such as B-PER"
        )
    return _ROLE[prefix], type_ or "_"


def _canonical(scheme: str) -> str:
    scheme = _ALIASES.get(scheme, scheme)
    if scheme not in _LETTERS:
        raise ValueError(
            f"unknown tag scheme {scheme!r}; known: {', '.join((*SCHEMES, *_ALIASES))}"
        )
    return scheme


def _some(names: Iterable[str]) -> str:
    """Return the first few names for a message, shortened, with control characters escaped."""
    return ", ".join(shortened(name) for name in sorted(names)[:5])
