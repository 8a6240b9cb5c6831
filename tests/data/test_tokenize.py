"""Tokens of raw text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residense.data.tokenize import tokenize

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
THUMB = "\U0001f44d\U0001f3fd"
GERMANY, FRANCE = "\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"
HEART, KEYCAP = "\u2764\ufe0f", "1\ufe0f\u20e3"


def tokens(text: str, unit: str) -> list[str]:
    return [text[start:end] for start, end in tokenize(text, unit)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm here, it\u2019s fine.", "I 'm here , it \u2019s fine ."),
        ("We don't, can't, DON'T!", "We do n't , ca n't , DO N'T !"),
        ("they'll we've you're I'd", "they 'll we 've you 're I 'd"),
        ("O'Brien said 'hello'", "O ' Brien said ' hello '"),
        ("@paul_walk likes #NLProc!", "@paul_walk likes #NLProc !"),
        ("see (http://t.co/a?b=1), www.a.org.", "see ( http://t.co/a?b=1 ) , www.a.org ."),
        ("mail jo.do+x@a-b.co.uk.", "mail jo.do+x@a-b.co.uk ."),
        ("3.5 1,000 1,2 v1.2.3 2nd 80s", "3.5 1,000 1 , 2 v1.2.3 2nd 80s"),
        ("end.Next state-of-the-art", "end . Next state - of - the - art"),
        ("watched\u200bwas", "watched\u200bwas"),
    ],
)
def test_words_split_as_in_wnut(text: str, expected: str) -> None:
    assert tokens(text, "word") == expected.split(" ")


def test_words_keep_combining_marks_and_hangul_runs() -> None:
    assert tokens("cafe\u0301 हिन्दी 한국어는", "word") == ["cafe\u0301", "हिन्दी", "한국어는"]


def test_han_and_kana_stand_alone() -> None:
    assert tokens("我们去3.5公里、東京タワー", "word") == [*"我们去", "3.5", *"公里、東京タワー"]


@pytest.mark.parametrize("whole", ["http://t.cn/abc", "a@b.cn", "@user_1", "#tag", "3.5"])
def test_what_stays_whole_does_so_between_chinese_characters(whole: str) -> None:
    assert tokens(f"看{whole}好", "word") == ["看", whole, "好"]


@pytest.mark.parametrize("unit", ["word", "char"])
def test_emoji_sequences_stay_whole(unit: str) -> None:
    assert tokens(f"{FAMILY}{THUMB}{GERMANY}{FRANCE}{HEART}", unit) == [
        FAMILY,
        THUMB,
        GERMANY,
        FRANCE,
        HEART,
    ]
    assert tokens(KEYCAP, unit) == [KEYCAP]


def test_characters_keep_their_marks() -> None:
    assert tokens("e\u0301a b\u3000我", "char") == ["e\u0301", "a", "b", "我"]


@pytest.mark.parametrize("unit", ["word", "char"])
@given(st.text() | st.text(alphabet="aB1 .,'@#:/n't\u0301\u200d\u2764\ufe0f我カ\u3000\n-_w"))
def test_only_spaces_are_left_out(unit: str, text: str) -> None:
    offsets = tokenize(text, unit)
    covered = [position for start, end in offsets for position in range(start, end)]
    assert covered == sorted(set(covered))
    assert {position for position, character in enumerate(text) if not character.isspace()} == set(
        covered
    )


@pytest.mark.parametrize("unit", ["word", "char"])
@pytest.mark.parametrize(
    "part", ["a", "a.", "a@", "-a", "n'", "www.", "http://", "1,", "\u200d", "\u0301", "+"]
)
def test_time_is_linear_in_the_length(unit: str, part: str) -> None:
    text = part * (30_000 // len(part))
    began = time.process_time()
    tokenize(text, unit)
    assert time.process_time() - began < 2  # quadratic time would take a minute


def test_an_unknown_unit_is_named() -> None:
    with pytest.raises(ValueError, match="unknown unit 'byte'; known: char, word"):
        tokenize("a", "byte")
