"""The embedded corpus is reproducible, well-formed and hard enough to be worth training on."""

import os
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from hashlib import sha256

import pytest

from residense.data.synthetic import LABELS, Language, Sentence, Synthetic

LANGUAGES: tuple[Language, ...] = ("en", "zh")
SIZE = 4000
Span = tuple[int, int, int, str]


@cache
def corpus(language: Language) -> dict[str, list[Sentence]]:
    return Synthetic(language, size=SIZE).splits()


def spans(sentences: list[Sentence]) -> set[Span]:
    """Entities as (sentence, start, end, type)."""
    found: set[Span] = set()
    for number, (_, tags) in enumerate(sentences):
        starts = [at for at, tag in enumerate(tags) if tag.startswith("B-")]
        for start in starts:
            end = start + 1
            while end < len(tags) and tags[end].startswith("I-"):
                end += 1
            found.add((number, start, end, tags[start][2:]))
    return found


def surfaces(sentences: list[Sentence]) -> dict[tuple[str, ...], Counter[str]]:
    """How often each entity string carries each type."""
    counts: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for number, start, end, label in spans(sentences):
        counts[tuple(sentences[number][0][start:end])][label] += 1
    return counts


def lookup(known: dict[tuple[str, ...], str], sentences: list[Sentence]) -> set[Span]:
    """Greedy longest match from left to right."""
    longest = max(map(len, known))
    found: set[Span] = set()
    for number, (tokens, _) in enumerate(sentences):
        at = 0
        while at < len(tokens):
            ends = range(min(len(tokens), at + longest), at, -1)
            end = next((end for end in ends if tuple(tokens[at:end]) in known), None)
            if end is not None:
                found.add((number, at, end, known[tuple(tokens[at:end])]))
            at = end or at + 1
    return found


def fingerprint(language: Language) -> str:
    return sha256(repr(Synthetic(language, size=300, seed=3).splits()).encode()).hexdigest()


@pytest.mark.parametrize("language", LANGUAGES)
def test_same_seed_gives_the_same_corpus_in_another_process(language: Language) -> None:
    code = (
        "from hashlib import sha256; from residense.data.synthetic import Synthetic;"
        f"print(sha256(repr(Synthetic({language!r}, size=300, seed=3).splits()).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert other.stdout.decode().strip() == fingerprint(language)


def test_seeds_differ() -> None:
    assert Synthetic(size=50, seed=1).splits() != Synthetic(size=50, seed=2).splits()


@pytest.mark.parametrize(("size", "expected"), [(SIZE, (3200, 400, 400)), (57, (47, 5, 5))])
def test_split_sizes(size: int, expected: tuple[int, int, int]) -> None:
    splits = corpus("en") if size == SIZE else Synthetic(size=size).splits()
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_tokens_and_tags_are_well_formed(language: Language) -> None:
    for tokens, tags in (sentence for split in corpus(language).values() for sentence in split):
        assert tokens and len(tokens) == len(tags)
        assert all(
            token and not any(char.isspace() or char in "[]{}|" for char in token)
            for token in tokens
        )
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert tag == "O" or tag[2:] in LABELS
            assert tag == "O" or tag[:2] == "B-" or (tag[:2] == "I-" and before[2:] == tag[2:])


@pytest.mark.parametrize("language", LANGUAGES)
def test_chinese_is_split_by_character_and_english_by_word(language: Language) -> None:
    lengths = Counter(
        len(token) == 1 for tokens, _ in corpus(language)["train"] for token in tokens
    )
    assert (lengths[False] == 0) == (language == "zh")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_type_occurs(language: Language, split: str) -> None:
    assert {label for *_, label in spans(corpus(language)[split])} == set(LABELS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_many_words_are_ambiguous(language: Language) -> None:
    train = corpus(language)["train"]
    types = surfaces(train)
    between_types = [surface for surface, labels in types.items() if len(labels) > 1]
    outside = Counter(
        tuple(tokens[at:end])
        for tokens, tags in train
        for at in range(len(tokens))
        for end in range(at + 1, min(at + 3, len(tokens)) + 1)
        if set(tags[at:end]) == {"O"}
    )
    also_outside = [surface for surface in types if outside[surface]]
    assert len(between_types) >= 45
    assert len(also_outside) >= 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_lookup_fails_and_much_is_unseen(language: Language) -> None:
    train, test = corpus(language)["train"], corpus(language)["test"]
    known = {surface: labels.most_common(1)[0][0] for surface, labels in surfaces(train).items()}
    gold, guessed = spans(test), lookup(known, test)
    unseen = sum(tuple(test[number][0][start:end]) not in known for number, start, end, _ in gold)
    assert unseen / len(gold) >= 0.4
    assert 200 * len(gold & guessed) / (len(gold) + len(guessed)) < 60
