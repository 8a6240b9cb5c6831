"""Tag schemes against seqeval, against brute force and against each other."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from residense.tags import (
    SCHEMES,
    Span,
    detect,
    encode,
    improper,
    legal_transitions,
    spans,
    split_tag,
)

LETTERS = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
SEQEVAL = str.maketrans("MLU", "IES")
TYPES = ("PER", "PER.NOM", "creative-work")


def tags_of(scheme: str, types: tuple[str, ...] = TYPES) -> list[str]:
    return ["O", *(f"{letter}-{type_}" for letter in LETTERS[scheme] for type_ in types)]


def random_sequences(scheme: str, count: int) -> Iterator[list[str]]:
    source, tags = random.Random(13), tags_of(scheme)
    return (source.choices(tags, k=source.randrange(10)) for _ in range(count))


@st.composite
def sentences_with_spans(draw: st.DrawFn) -> tuple[list[Span], int]:
    found, position = [], 0
    for gap, length, type_ in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(TYPES)))
    ):
        found.append(Span(position + gap, position + gap + length, type_))
        position += gap + length
    return found, position + draw(st.integers(0, 2))


def test_a_tag_splits_at_its_first_hyphen() -> None:
    assert split_tag("B-PER.NOM") == ("B", "PER.NOM")
    assert split_tag("I-creative-work") == ("I", "creative-work")
    assert split_tag("O") == ("O", "")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_are_the_entities_of_seqeval(scheme: str) -> None:
    for tags in random_sequences(scheme, 10_000):
        translated = [tag[0].translate(SEQEVAL) + tag[1:] for tag in tags]
        expected = [Span(start, end + 1, type_) for type_, start, end in get_entities(translated)]
        assert spans(tags) == expected, tags


def test_a_bare_prefix_is_a_span_without_a_type() -> None:
    assert spans(["B", "I", "O"]) == [Span(0, 2, "_")]
    assert [(type_, start, end) for type_, start, end in get_entities(["B", "I", "O"])] == [
        ("_", 0, 1)
    ]


def test_a_plain_label_is_no_span_tag() -> None:
    with pytest.raises(ValueError, match="'NOUN' is not a span tag"):
        spans(["NOUN"])


@pytest.mark.parametrize("scheme", SCHEMES)
@given(sentences_with_spans())
def test_encoded_spans_are_proper_and_read_back(
    scheme: str, sentence: tuple[list[Span], int]
) -> None:
    found, length = sentence
    tags = encode(found, length, scheme)
    assert spans(tags) == found
    assert improper(tags, scheme) == []


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("source", SCHEMES)
def test_converting_keeps_the_spans_of_any_tags(source: str, target: str) -> None:
    for tags in random_sequences(source, 100):
        converted = encode(spans(tags), len(tags), target)
        assert spans(converted) == spans(tags)
        assert improper(converted, target) == []
        assert encode(spans(converted), len(tags), target) == converted


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB2", "B-A I-A I-A B-A O B-B"),
        ("BIO", "B-A I-A I-A B-A O B-B"),
        ("IOB1", "I-A I-A I-A B-A O I-B"),
        ("IOBES", "B-A I-A E-A S-A O S-B"),
        ("BILOU", "B-A I-A L-A U-A O U-B"),
        ("BMES", "B-A M-A E-A S-A O S-B"),
    ],
)
def test_each_scheme_spells_spans_its_own_way(scheme: str, tags: str) -> None:
    assert encode([Span(3, 4, "A"), Span(0, 3, "A"), Span(5, 6, "B")], 6, scheme) == tags.split()


@pytest.mark.parametrize(
    "bad", [[Span(0, 3, "A")], [Span(1, 1, "A")], [Span(0, 2, "A"), Span(1, 2, "B")]]
)
def test_spans_that_no_tags_can_spell_are_refused(bad: list[Span]) -> None:
    with pytest.raises(ValueError, match="overlaps another or leaves a sentence of 2 tokens"):
        encode(bad, 2, "IOB2")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_is_detected_from_its_own_tags(scheme: str) -> None:
    sentence = [Span(0, 1, "A"), Span(1, 2, "A"), Span(2, 5, "B"), Span(6, 8, "A")]
    assert detect([encode(sentence, 9, scheme)]) == scheme


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([], "IOB2"),
        ([["O", "O"]], "IOB2"),
        ([["B-A", "O", "B-A"]], "IOB2"),
        ([["O", "I-A"]], "IOB1"),
        ([["B-A", "I-A"]] * 9 + [["O", "I-A"]], "IOB2"),
        ([["I-A", "O"], ["I-A", "B-A"]], "IOB1"),
        ([["B-A", "E-A", "S-A"]], "IOBES"),
        ([["U-A"]], "BILOU"),
        ([["NOUN", "-LRB-", "NN-SHORT"]], "none"),
    ],
)
def test_detection_follows_prefixes_and_legality(sentences: list[list[str]], scheme: str) -> None:
    assert detect(sentences) == scheme


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["B-PER", "LOC"], r"some tags have a prefix \('B-PER'\) and some have none \('LOC'\)"),
        (["X-PER", "B-PER"], "no tag scheme has all the prefixes 'B', 'X'"),
        (["M-PER", "I-PER"], "no tag scheme has all the prefixes 'I', 'M'"),
    ],
)
def test_tags_of_no_scheme_are_named(tags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect([tags])


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ValueError, match="unknown tag scheme 'BIOX'; known: IOB2, "):
        encode([], 0, "BIOX")


@pytest.mark.parametrize(
    ("tags", "scheme", "positions"),
    [
        ("O I-A I-A", "IOB2", [1]),
        ("B-A I-B", "IOB2", [1]),
        ("O I-A B-A", "IOB1", []),
        ("B-A I-A B-B", "IOB1", [0, 2]),
        ("B-A I-A", "IOBES", [1]),
        ("B-A O", "IOBES", [1]),
        ("E-A S-A", "IOBES", [0]),
        ("B-A E-B", "BMES", [1]),
        ("E-A", "IOB2", [0]),
        ("", "IOBES", []),
        ("X Y", "none", []),
    ],
)
def test_improper_tags_are_found(tags: str, scheme: str, positions: list[int]) -> None:
    assert improper(tags.split(), scheme) == positions


@pytest.mark.parametrize("scheme", [*SCHEMES, "BIO"])
def test_legal_transitions_are_those_without_an_improper_tag(scheme: str) -> None:
    labels = tags_of("IOB2" if scheme == "BIO" else scheme, ("PER", "LOC"))
    follow, start, end = legal_transitions(labels, scheme)
    assert follow.dtype == start.dtype == end.dtype == np.bool_
    for i, before in enumerate(labels):
        assert (start[i] and end[i]) == (improper([before], scheme) == [])
        for j, after in enumerate(labels):
            proper = improper([before, after], scheme) == []
            assert (start[i] and follow[i, j] and end[j]) == proper, (before, after)
            # Position 2 is improper only for what stands at position 1.
            assert follow[i, j] == (2 not in improper(["O", before, after, "O"], scheme))


def test_without_a_scheme_everything_is_legal() -> None:
    assert all(array.all() for array in legal_transitions(["NOUN", "VERB"], "none"))
