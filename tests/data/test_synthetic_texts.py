"""The corpus for text classification is reproducible, leaks nothing and defeats a bag of words."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from hashlib import sha256
from itertools import pairwise

import pytest

from residense.data.synthetic_texts import LABELS, SyntheticTexts, Text, _Texts

POOLS = ("good", "town", "name")
TWINS = (("late", "early"), ("credit", "debit"), ("praise", "complaint"))


@cache
def corpus() -> dict[str, list[Text]]:
    return SyntheticTexts().splits()


def fingerprint() -> str:
    return sha256(repr(SyntheticTexts(size=300, seed=3).splits()).encode()).hexdigest()


def mentions(split: str) -> Counter[str]:
    """The words and pairs of words of a split, in lower case."""
    counts: Counter[str] = Counter()
    for text, _ in corpus()[split]:
        words = re.findall(r"\w+", text.lower())
        counts.update(words)
        counts.update(map(" ".join, pairwise(words)))
    return counts


@pytest.mark.slow
def test_same_seed_gives_the_same_corpus_in_another_process() -> None:
    code = (
        "from hashlib import sha256; from residense.data.synthetic_texts import SyntheticTexts;"
        "print(sha256(repr(SyntheticTexts(size=300, seed=3).splits()).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert other.stdout.decode().strip() == fingerprint()


def test_seeds_differ() -> None:
    assert SyntheticTexts(size=50, seed=1).splits() != SyntheticTexts(size=50, seed=2).splits()


@pytest.mark.parametrize(("size", "expected"), [(6000, (4800, 600, 600)), (57, (47, 5, 5))])
def test_split_sizes(size: int, expected: tuple[int, int, int]) -> None:
    splits = corpus() if size == 6000 else SyntheticTexts(size=size).splits()
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == expected


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_class_occurs_and_none_dominates(split: str) -> None:
    labels = Counter(label for _, label in corpus()[split])
    assert set(labels) == set(LABELS)
    assert max(labels.values()) < 0.3 * labels.total()
    assert 0.02 < min(labels.values()) / labels.total() < 0.1


def test_texts_are_well_formed() -> None:
    for text, _ in (pair for split in corpus().values() for pair in split):
        assert 5 <= len(text.split()) <= 30
        assert text == " ".join(text.split())
        assert not set(text) & set("[]{}<>|/#@_")


def test_no_text_occurs_twice() -> None:
    texts = [text.lower() for split in corpus().values() for text, _ in split]
    assert len(set(texts)) == len(texts)


def test_held_out_words_appear_after_training_only() -> None:
    grammar = _Texts(random.Random(0))
    train, test = mentions("train"), mentions("test")
    for pool in POOLS:
        held_out = {word.lower() for word in set(grammar.every[pool]) - set(grammar.rules[pool])}
        assert len(held_out) >= 5
        assert not any(train[word] for word in held_out)
        assert sum(test[word] > 0 for word in held_out) >= 0.8 * len(held_out)


@pytest.mark.parametrize("label", LABELS)
def test_training_draws_no_held_out_lines(label: str) -> None:
    grammar = _Texts(random.Random(0))
    train = set(grammar.rules[label])
    assert train < set(grammar.every[label])
    grammar.texts(200)
    assert set(grammar.rules[label]) == train
    grammar.splits(30, grammar.texts)
    assert grammar.rules == grammar.every


@pytest.mark.parametrize(("one", "two"), TWINS)
def test_twin_classes_withhold_the_same_lines(one: str, two: str) -> None:
    rules = _Texts(random.Random(0)).rules
    assert len(rules[one]) == len(rules[two])
    assert [len(line.split()) for line in rules[one]] == [len(line.split()) for line in rules[two]]


def test_no_word_gives_a_class_away() -> None:
    words: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    for text, label in corpus()["train"]:
        words[label].update(set(re.findall(r"\w+", text.lower())))
    assert not any(counts[label] for counts in words.values() for label in LABELS)
    for one, two in TWINS:
        for label, twin in ((one, two), (two, one)):
            assert all(words[twin][word] for word, count in words[label].items() if count >= 20)


@pytest.mark.slow
def test_a_bag_of_words_falls_short() -> None:
    features = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    train, test = ([*zip(*corpus()[split], strict=True)] for split in ("train", "test"))
    vectors = features.TfidfVectorizer(ngram_range=(1, 2))
    model = linear.LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train[0]), train[1])
    assert 0.70 <= model.score(vectors.transform(test[0]), test[1]) <= 0.85
