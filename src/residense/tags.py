"""Tag schemes: how the tags of a sentence encode typed spans.

A scheme has four prefixes (begin, inside, end, single) and "O". Whether tags are legal depends only
on two neighboring ones, where the border of a sentence counts as "O". Spans are read as conlleval
reads them (Tjong Kim Sang & De Meulder 2003, https://aclanthology.org/W03-0419), from any sequence
of tags, legal or not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from reprlib import repr as shortened
from typing import NamedTuple

import numpy as np

# prefixes for begin, inside, end and single; the order breaks ties in `detect`
_LETTERS = {"IOB2": "BIIB", "IOB1": "BIII", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
_ALIASES = {"BIO": "IOB2"}
# what a prefix of any scheme means, as the prefix of IOBES
_ROLE = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "O": "O"}

SCHEMES: tuple[str, ...] = tuple(_LETTERS)


class Span(NamedTuple):
    """An entity: tokens `start` to `end` (exclusive) of one type."""

    start: int
    end: int
    type: str


class LegalTransitions(NamedTuple):
    """Which of K tags may follow which.

    Attributes:
        follow: [K, K], from the tag before (row) to the tag after (column).
        start: [K], which tags may start a sentence.
        end: [K], which tags may end it.
    """

    follow: np.ndarray
    start: np.ndarray
    end: np.ndarray


def split_tag(tag: str) -> tuple[str, str]:
    """Return prefix and type of a tag: "B-PER" gives ("B", "PER"), "O" gives ("O", "")."""
    prefix, _, type_ = tag.partition("-")
    return prefix, type_


def spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence as conlleval reads them, for tags of any scheme.

    A span starts at B or S, at a change of type, and at an I or E with nothing to continue; it ends
    after E or S. This is the default mode of seqeval, with L, U and M read as E, S and I.

    Args:
        tags: The tags of one sentence.
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
    """Return the tags that encode non-overlapping spans in a scheme.

    Args:
        spans: The spans, in any order.
        length: Number of tokens of the sentence.
        scheme: One of `SCHEMES`, or "BIO" for IOB2. IOB1 writes B- only where a span directly
            follows another of the same type.

    Raises:
        ValueError: A span is empty, overlaps another or leaves the sentence.
    """
    scheme = _canonical(scheme)
    begin, inside, end, single = _LETTERS[scheme]
    tags = ["O"] * length
    for span in sorted(spans):
        if not 0 <= span.start < span.end <= length or set(tags[span.start : span.end]) != {"O"}:
            raise ValueError(
                f"{span} is empty, overlaps another or leaves a sentence of {length} tokens"
            )
        size = span.end - span.start
        letters = single if size == 1 else begin + inside * (size - 2) + end
        if scheme == "IOB1":
            same_type = (f"B-{span.type}", f"I-{span.type}")
            touches = span.start > 0 and tags[span.start - 1] in same_type
            letters = ("B" if touches else "I") + letters[1:]
        tags[span.start : span.end] = [f"{letter}-{span.type}" for letter in letters]
    return tags


def detect(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of a corpus, or "none" if its tags are plain labels such as NOUN.

    Of the schemes that have all prefixes of the corpus, this is the one that the fewest neighboring
    tags violate, or the first of `SCHEMES` among equals. So a few illegal tags do not matter, and a
    corpus without entities is IOB2.

    Args:
        sentences: The tags of each sentence.

    Raises:
        ValueError: Prefixed and plain tags are mixed, or no scheme has all the prefixes.
    """
    pairs = Counter(pair for tags in sentences for pair in pairwise(("O", *tags, "O")))
    seen = {tag for _, tag in pairs if tag != "O"}
    # a prefix is one character: "-LRB-" and "NN-SHORT" have none
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

    These are the tags that may not follow the one before, and a last tag that leaves a span without
    its end.

    Args:
        tags: The tags of one sentence.
        scheme: The scheme that they should follow; nothing violates "none".
    """
    if scheme == "none":
        return []
    scheme = _canonical(scheme)
    borders = enumerate(pairwise(("O", *tags, "O")))
    last = len(tags) - 1
    return sorted({min(position, last) for position, pair in borders if not _legal(*pair, scheme)})


def legal_transitions(labels: Sequence[str], scheme: str) -> LegalTransitions:
    """Return which of the K labels may follow which, and start and end a sentence.

    Args:
        labels: The tags.
        scheme: The scheme; for "none" everything is legal.
    """
    tags = [*labels, "O"]  # the last one stands for the borders of a sentence
    if scheme == "none":
        table = np.ones((len(tags), len(tags)), bool)
    else:
        scheme = _canonical(scheme)
        table = np.array([[_legal(before, after, scheme) for after in tags] for before in tags])
    return LegalTransitions(table[:-1, :-1], table[-1, :-1], table[:-1, -1])


def _legal(before: str, after: str, scheme: str) -> bool:
    """Return whether one tag may follow another, where "O" is also the border of a sentence."""
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
    """Return role and type; a bare "B" has the type "_", as in seqeval."""
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
