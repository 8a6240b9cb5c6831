"""Dictionary look-up against brute force, and scores of spans against seqeval."""

import random
import time
import warnings

import pytest
from seqeval.metrics import precision_score, recall_score
from seqeval.metrics.sequence_labeling import f1_score

from residense.data.corpus import Corpus
from residense.data.vocabulary import Vocabulary, entity_key
from residense.metrics.baseline import Trie, span_scores, unseen
from residense.tags import Span, encode

WORDS = "abc"


def slow_look_up(tokens: list[str], entities: dict[tuple[str, ...], str]) -> list[Span]:
    """All matches, of which the leftmost wins, then the longest, until none is left that touches no other."""
    matches = [
        Span(start, start + len(words), kind)
        for words, kind in entities.items()
        for start in range(len(tokens) - len(words) + 1)
        if tuple(tokens[start : start + len(words)]) == words
    ]
    found: list[Span] = []
    for span in sorted(matches, key=lambda span: (span.start, -span.end)):
        if not found or span.start >= found[-1].end:
            found.append(span)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_look_up_takes_the_longest_match_from_left_to_right(seed: int) -> None:
    source = random.Random(seed)
    entities = {
        tuple(source.choices(WORDS, k=source.randint(1, 4))): source.choice(["X", "Y"])
        for _ in range(source.randint(0, 8))
    }
    known = Trie({entity_key(words): kind for words, kind in entities.items()})
    for _ in range(40):
        tokens = source.choices(WORDS, k=source.randint(0, 12))
        assert known.look_up(tokens) == slow_look_up(tokens, entities)


def test_entities_are_found_by_the_words_and_not_by_their_letters() -> None:
    known = Trie({entity_key(["New", "York"]): "LOC"})
    assert known.look_up(["in", "New", "York"]) == [Span(1, 3, "LOC")]
    assert known.look_up(["New York", "new", "york", "NewYork"]) == []


def test_looking_up_long_entities_takes_no_longer_than_reading_them() -> None:
    words = [f"w{i % 997}" for i in range(20_000)]
    expected = [Span(start, start + 20_000, "X") for start in range(0, 100_000, 20_000)]
    begin = time.perf_counter()
    assert Trie({entity_key(words): "X"}).look_up(words * 5) == expected
    assert Trie({entity_key([*words, "end"]): "X"}).look_up(words[1:] + words[1:]) == []
    assert time.perf_counter() - begin < 2


def test_a_spelling_has_the_type_it_has_most_often() -> None:
    rows = [
        ("Turin won", "B-ORG O"),
        ("Turin", "B-LOC"),
        ("Turin", "B-LOC"),
        ("in New York", "O B-LOC I-LOC"),
    ]
    corpus = Corpus.build([(words.split(), tags.split()) for words, tags in rows], "IOB2", 50)
    known = Vocabulary.build(corpus, corpus.labels, "IOB2", 1)
    assert known.entities == {"Turin": "LOC", entity_key(["New", "York"]): "LOC"}


def test_unseen_entities_are_those_never_spelled_so() -> None:
    tokens = ["Ada", "in", "New", "York"]
    found = [Span(0, 1, "PER"), Span(2, 4, "LOC")]
    assert unseen(tokens, found, {entity_key(["New", "York"]): "ORG"}) == [Span(0, 1, "PER")]
    assert unseen(tokens, found, {"New": "LOC", "York": "LOC", "ada": "PER"}) == found


def random_spans(source: random.Random, length: int) -> list[Span]:
    cuts = sorted(source.sample(range(length + 1), 4))
    return [Span(a, b, source.choice("XY")) for a, b in (cuts[:2], cuts[2:])][
        : source.randint(0, 2)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_span_scores_are_those_of_seqeval(seed: int) -> None:
    source = random.Random(seed)
    gold = [random_spans(source, 4) for _ in range(100)]
    found = [spans if source.random() < 0.3 else random_spans(source, 4) for spans in gold]
    tags, guessed = ([encode(spans, 4, "IOB2") for spans in side] for side in (gold, found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [score(tags, guessed) for score in (precision_score, recall_score, f1_score)]
    scores = span_scores(gold, found)
    assert [scores["precision"], scores["recall"], scores["f1"]] == pytest.approx(expected)
    assert scores["support"] == sum(map(len, gold))
    assert 0 < scores["f1"] < 1


def test_nothing_to_find_and_nothing_found_scores_zero() -> None:
    assert span_scores([[]], [[]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
