"""The vocabulary: ids of words, characters and labels, and what it remembers of the training corpus."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from residense.data.corpus import Corpus
from residense.data.units import Units, subword_tokenizer
from residense.data.vectors import Vectors
from residense.data.vocabulary import (
    MAX_CHARACTERS,
    Vocabulary,
    entity_key,
)
from residense.nn.embeddings import PADDING, SPECIAL, UNKNOWN
from residense.tags import SCHEMES, Span, encode, improper, legal_transitions, spans

LETTERS = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}


def vocabulary(
    *texts: str, min_frequency: int = 1, vectors: tuple[str, ...] = (), subwords: str = ""
) -> Vocabulary:
    corpus = Corpus.build(
        ((text.split(), ["O"] * len(text.split())) for text in texts), "IOB2", 100
    )
    matrix = np.zeros((len(vectors), 3 if vectors else 0), np.float32)
    given = Vectors([*vectors], matrix)
    return Vocabulary.build(corpus, ["O"], "IOB2", min_frequency, given, subwords=subwords)


def test_words_are_known_in_lower_case_most_frequent_first() -> None:
    known = vocabulary("The cat saw the CAT", "the end")
    assert known.words == ["the", "cat", "end", "saw"]
    assert known.word_ids(["THE", "cat", "Saw"]).tolist() == [2, 3, 5]
    assert known.table_sizes.words == 4 + SPECIAL


def test_what_is_written_comes_before_what_is_lower_case() -> None:
    known = vocabulary("turin Turin US us", vectors=("Turin", "us", "US"))
    ids = {word: i for i, word in enumerate(known.words, SPECIAL)}
    assert known.word_ids(["Turin", "TURIN", "US", "Us"]).tolist() == [
        ids["Turin"],
        ids["turin"],
        ids["US"],
        ids["us"],
    ]
    assert known.words[:3] == ["Turin", "us", "US"]
    assert (known.num_vectors, known.vector_dim) == (3, 3)
    assert len(known.words) == len(set(known.words))


def test_words_never_seen_are_unknown_and_none_is_padding() -> None:
    known = vocabulary("a b")
    ids = known.word_ids(["a", "never", ""])
    assert ids.dtype == np.int64
    assert ids.tolist() == [2, UNKNOWN, UNKNOWN]
    assert PADDING not in ids
    assert known.word_ids([]).shape == (0,)


@pytest.mark.parametrize(
    ("min_frequency", "words"), [(1, ["a", "b", "c"]), (2, ["a", "b"]), (3, ["a"]), (9, [])]
)
def test_rare_words_are_unknown_but_their_characters_are_not(
    min_frequency: int, words: list[str]
) -> None:
    known = vocabulary("a A a b B c", min_frequency=min_frequency)
    assert known.words == words
    assert known.chars == ["a", "A", "B", "b", "c"]


def test_a_rare_word_with_a_vector_is_known() -> None:
    assert vocabulary("a a rare", min_frequency=2, vectors=("rare", "other")).words == [
        "rare",
        "other",
        "a",
    ]


def test_spellings_are_ids_of_characters() -> None:
    known = vocabulary("aab ba 纽")
    place = {char: i for i, char in enumerate(known.chars, SPECIAL)}
    table = known.char_ids(["ab", "b?a", "纽"])
    assert table.dtype == np.int64
    assert table.tolist() == [
        [place["a"], place["b"], PADDING],
        [place["b"], UNKNOWN, place["a"]],
        [place["纽"], PADDING, PADDING],
    ]
    assert known.table_sizes.chars == len("ab纽") + SPECIAL
    assert known.char_ids([]).shape[0] == 0


def test_long_spellings_lose_their_middle() -> None:
    known = vocabulary("abcdefghijklmnopqrstuvwxyz")
    half = MAX_CHARACTERS // 2
    long = "abcdefghijklmnop" + "q" * 30 + "klmnopqrstuvwxyz"
    (row,) = known.char_ids([long])
    assert [known.chars[i - SPECIAL] for i in row] == [*long[:half], *long[-half:]]
    assert known.char_ids(["a" * MAX_CHARACTERS]).shape == (1, MAX_CHARACTERS)


def test_words_are_spelled_in_subwords() -> None:
    text = "the lowest tower lower towers the newest and the lowest " * 20
    state = subword_tokenizer([text], 120)
    known = vocabulary(text, subwords=state)
    cut = Units("subword", state).cut
    (row,) = known.char_ids(["newest"])
    assert [known.chars[i - SPECIAL] for i in row] == cut("newest")[0]
    other = vocabulary("another corpus").with_words_of(known)
    assert other.char_ids(["newest"]).tolist() == [row.tolist()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_are_completed_for_each_type(scheme: str) -> None:
    tags = encode([Span(0, 1, "PER"), Span(2, 4, "creative-work")], 4, scheme)
    corpus = Corpus.build([([*"abcd"], tags)], scheme, 10)
    known = Vocabulary.build(corpus, corpus.labels, scheme, 1)
    expected = {
        f"{letter}-{kind}" for letter in LETTERS[scheme] for kind in ("PER", "creative-work")
    }
    assert known.labels[0] == "O"
    assert set(known.labels) == {"O", *expected}
    assert known.labels[1:] == sorted(known.labels[1:])
    assert not improper(tags, scheme)
    follow, start, end = legal_transitions(known.labels, scheme)
    for i in range(len(known.labels)):  # no label that leads nowhere
        assert start[i] or follow[:, i].any()
        assert end[i] or follow[i].any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_spans_that_touch_can_be_spelled(scheme: str) -> None:
    corpus = Corpus.build([([*"ab"], encode([Span(0, 1, "A")], 2, scheme))], scheme, 10)
    known = Vocabulary.build(corpus, corpus.labels, scheme, 1)
    for found in (
        [Span(0, 1, "A"), Span(1, 2, "A")],
        [Span(0, 2, "A"), Span(2, 5, "A")],
        [Span(0, 3, "A")],
    ):
        assert set(encode(found, 5, scheme)) <= set(known.labels)


def test_plain_labels_are_those_of_the_corpus() -> None:
    corpus = Corpus.build([(["a", "b"], ["VERB", "B-ARE"])], "none", 10)
    known = Vocabulary.build(corpus, [*corpus.labels, "O"], "none", 1)
    assert known.labels == ["O", "B-ARE", "VERB"]
    assert known.entities == {}


def test_label_ids_follow_the_labels_and_strange_ones_are_named() -> None:
    known = Vocabulary([], [], ["O", "B-A", "I-A"], "IOB2", "word")
    assert known.label_ids(["I-A", "O"]).tolist() == [2, 0]
    with pytest.raises(
        ValueError, match=r"^the corpus has labels that this model does not know: X; it knows A, O"
    ):
        known.label_ids(["I-X", "O", "B-X"])


def test_entities_are_remembered_with_their_most_frequent_type() -> None:
    rows = [
        ("New York", "B-LOC I-LOC"),
        ("New York", "B-ORG I-ORG"),
        ("New York", "B-ORG I-ORG"),
        ("b", "B-LOC"),
    ]
    corpus = Corpus.build([(words.split(), tags.split()) for words, tags in rows], "IOBES", 10)
    known = Vocabulary.build(corpus, corpus.labels, "IOBES", 1)
    assert known.entities == {entity_key(["New", "York"]): "ORG", "b": "LOC"}
    assert [len(spans(tags)) for tags in corpus.document_tags()] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["我 在 纽 约 。"], "char"),
        (["a cat sat"], "word"),
        (["我 在 纽 约 。"] * 10 + ["OK"], "char"),
        (["我 在 纽 约"] * 4 + ["OK"], "word"),
    ],
)
def test_a_corpus_of_single_characters_is_noticed(texts: list[str], unit: str) -> None:
    assert vocabulary(*texts).unit == unit


def test_a_state_gives_the_vocabulary_back() -> None:
    corpus = Corpus.build([(["New", "York"], ["B-LOC", "I-LOC"])], "IOBES", 10)
    known = Vocabulary.build(
        corpus, corpus.labels, "IOBES", 1, Vectors(["york"], np.zeros((1, 7), np.float32))
    )
    assert Vocabulary(**asdict(known)) == known
    assert Vocabulary(**json.loads(json.dumps(asdict(known)))) == known
    asdict(known)["entities"].clear()
    assert known.entities


def test_building_twice_gives_the_same_ids() -> None:
    texts = ["b a c", "c a b", "z y x"]
    assert vocabulary(*texts) == vocabulary(*texts)
    assert vocabulary(*reversed(texts)).words == vocabulary(*texts).words
