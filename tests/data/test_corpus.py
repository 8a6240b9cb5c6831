"""The corpus as flat arrays: nothing is lost on the way in, out, or apart."""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residense.data.cache import pack, unpack
from residense.data.corpus import SENTENCE_ENDS, Corpus
from residense.tags import SCHEMES, Span, encode, improper, spans

Pair = tuple[list[str], list[str]]
WORDS = ["a", "b", "Ada", "纽约", ".", "?", "。", "\ud800", ""]


def sentence(source: random.Random, length: int, longest: int = 4, scheme: str = "IOB2") -> Pair:
    found, position = [], 0
    while position < length:
        end = min(length, position + source.randint(1, longest))
        if source.random() < 0.5:
            found.append(Span(position, end, source.choice(["PER", "LOC"])))
        position = end
    return source.choices(WORDS, k=length), encode(found, length, scheme)


def some(count: int = 20, longest: int = 30, seed: int = 0) -> list[Pair]:
    source = random.Random(seed)
    return [sentence(source, source.randint(1, longest)) for _ in range(count)]


def same(one: Corpus, other: Corpus) -> bool:
    arrays = one.values(), other.values()
    return arrays[0].keys() == arrays[1].keys() and all(
        np.array_equal(arrays[0][k], arrays[1][k]) for k in arrays[0]
    )


@pytest.mark.parametrize(
    ("scheme", "limit"),
    # in IOB1 two spans of a type that touch cannot be told apart once they are in two parts
    [
        (scheme, limit)
        for scheme in SCHEMES
        for limit in (1000, 10, 5)
        if scheme != "IOB1" or limit == 1000
    ],
)
def test_documents_come_back_with_all_tokens_and_spans(scheme: str, limit: int) -> None:
    pairs = some()
    corpus = Corpus.build(pairs, scheme, limit)
    assert corpus.num_documents == len(pairs)
    assert corpus.document_tokens() == [tokens for tokens, _ in pairs]
    assert [spans(tags) for tags in corpus.document_tags()] == [spans(tags) for _, tags in pairs]
    assert len(corpus.forms) == len(set(corpus.forms))
    assert corpus.lengths.sum() == len(corpus.tokens) == len(corpus.tags)


@pytest.mark.parametrize("limit", [10, 2])
def test_plain_tags_are_kept_as_they_are(limit: int) -> None:
    rows = [(["a", "b", "c"], ["DET", "I-LIKE", "I-LIKE"]), (["a"], ["DET"])]
    corpus = Corpus.build(rows, "none", limit)
    assert corpus.document_tags() == [tags for _, tags in rows]
    assert len(corpus) == (2 if limit == 10 else 3)


def test_a_corpus_without_tags_has_none() -> None:
    corpus = Corpus.build([(["a", "b"], []), (["c"], [])], "none", 10)
    assert corpus.labels == []
    assert corpus.tags.tolist() == [0, 0, 0]
    assert corpus.document_tokens() == [["a", "b"], ["c"]]


def parts_of(corpus: Corpus) -> list[tuple[int, list[str], list[str]]]:
    rows = zip(corpus.document.tolist(), pairwise(corpus.offsets.tolist()), strict=True)
    return [
        (
            number,
            [corpus.forms[i] for i in corpus.tokens[a:b]],
            [corpus.labels[i] for i in corpus.tags[a:b]],
        )
        for number, (a, b) in rows
    ]


@pytest.mark.parametrize("limit", [4, 7, 20])
@pytest.mark.parametrize("seed", range(5))
def test_long_sentences_are_split_near_the_limit_and_never_inside_a_span(
    limit: int, seed: int
) -> None:
    pairs = some(30, 60, seed)
    parts = parts_of(Corpus.build(pairs, "IOB2", limit))
    assert len(parts) > len(pairs)
    for (
        _,
        tokens,
        tags,
    ) in parts:  # a longer part ends with its first chance: nothing but spans from the limit on
        assert 0 < len(tokens) <= limit or not {"O"} & set(tags[limit - 1 :])
    for number, (tokens, tags) in enumerate(pairs):
        mine = [part for part in parts if part[0] == number]
        assert [token for _, part, _ in mine for token in part] == tokens
        starts = np.cumsum([0, *(len(part) for _, part, _ in mine)])
        moved = [
            Span(span.start + offset, span.end + offset, span.type)
            for offset, (_, _, part) in zip(starts.tolist(), mine, strict=False)
            for span in spans(part)
        ]
        assert moved == spans(tags)


def test_sentences_are_split_behind_a_full_stop_in_the_second_half() -> None:
    tokens = [*"ab.cd.efghi.jk"]
    corpus = Corpus.build([(tokens, ["O"] * len(tokens))], "IOB2", 8)
    assert ["".join(part) for _, part, _ in parts_of(corpus)] == ["ab.cd.", "efghi.jk"]
    assert all(stop in SENTENCE_ENDS for stop in ".。?！")


@pytest.mark.parametrize("length", [1, 7, 8])
def test_sentences_within_the_limit_stay_whole(length: int) -> None:
    assert Corpus.build([(["."] * length, ["O"] * length)], "IOB2", 8).lengths.tolist() == [length]


@pytest.mark.parametrize("limit", [0, -5])
def test_parts_without_a_token_are_refused(limit: int) -> None:
    with pytest.raises(AssertionError):
        Corpus.build([], "IOB2", limit)


def test_parts_of_one_token_are_possible() -> None:
    corpus = Corpus.build([([*"abcd"], ["O", "O", "B-A", "I-A"])], "IOB2", 1)
    assert corpus.lengths.tolist() == [1, 1, 2]


def test_a_blank_text_is_a_document_all_the_same() -> None:
    corpus = Corpus.build([(["a"], []), ([], []), (["b"], [])], "none", 5)
    assert corpus.num_documents == 3
    assert corpus.document_tokens() == [["a"], [], ["b"]]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "spanned", [[Span(0, 11, "A")], [Span(i, i + 1, "A") for i in range(11)], [Span(2, 9, "A")]]
)
def test_each_part_of_a_split_sentence_is_proper(scheme: str, spanned: Sequence[Span]) -> None:
    corpus = Corpus.build([([*"abcdefghijk"], encode(spanned, 11, "IOB2"))], scheme, 4)
    parts = parts_of(corpus)
    assert [span for tags in corpus.document_tags() for span in spans(tags)] == list(spanned)
    assert [improper(tags, scheme) for _, _, tags in parts] == [[]] * len(parts)


@pytest.mark.parametrize("seed", range(5))
def test_selected_documents_are_those_of_the_source(seed: int) -> None:
    pairs = some(seed=seed)
    corpus = Corpus.build(pairs, "IOB2", 6)
    chosen = np.random.default_rng(seed).permutation(len(pairs))[: 3 * seed + 1]
    selected = corpus.select(chosen)
    kept = [pairs[i] for i in sorted(chosen.tolist())]
    assert selected.num_documents == len(kept)
    assert selected.document_tokens() == [tokens for tokens, _ in kept]
    assert [spans(tags) for tags in selected.document_tags()] == [spans(tags) for _, tags in kept]
    assert [part[1:] for part in parts_of(selected)] == [
        part[1:] for part in parts_of(corpus) if part[0] in chosen.tolist()
    ]
    assert same(corpus.select(np.arange(len(pairs))), corpus)


def test_nothing_selected_is_an_empty_corpus() -> None:
    empty = Corpus.build(some(), "IOB2", 6).select(np.array([], int))
    assert (len(empty), empty.num_documents, empty.document_tokens()) == (0, 0, [])
    assert len(Corpus.build([], "IOB2", 6)) == 0


def test_arrays_give_the_corpus_back() -> None:
    corpus = Corpus.build(some(), "BILOU", 6)
    other = Corpus(**{name: unpack(pack(value)) for name, value in corpus.values().items()})
    assert same(corpus, other)
    assert (other.forms, other.labels) == (corpus.forms, corpus.labels)
    assert other.document_tags() == corpus.document_tags()


@given(st.lists(st.text(st.characters())))
def test_packed_strings_come_back(strings: list[str]) -> None:
    packed = pack(strings)
    assert packed.dtype == np.uint8
    assert unpack(packed) == strings


def test_all_kinds_of_strings_can_be_packed() -> None:
    strings = ["", "\x00", "\x1f", "ÿ", "\n", "", "\ud800", "👍🏽", "\U0010ffff", ""]
    assert unpack(pack(strings)) == strings
