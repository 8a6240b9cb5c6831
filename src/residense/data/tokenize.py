"""Split raw text into tokens, as character offsets.

There is one regular expression for each unit. Its alternatives are tried in order, and the last one
matches any character but a space, so nothing is lost. Repetitions are possessive or bounded, so the
time is linear.
"""

import re
import unicodedata

from residense.errors import UsageError

# Han and kana are written without spaces, so each character is a token; Hangul is left in runs.
_HAN = (
    "\u3005-\u3007\u3021-\u3029\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_KANA = "\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d\U0001aff0-\U0001b16f"
_CJK = _HAN + _KANA


def _combining_marks() -> str:
    """Return all combining marks, for a character class; `re` has no name for them."""
    planes = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
    return "".join(chr(code) for code in planes if unicodedata.category(chr(code))[0] == "M")


_MARKS = _combining_marks()
# Invisible characters inside words: soft hyphen, zero-width space, joiners, word joiner, BOM.
_INVISIBLE = "\u00ad\u200b-\u200d\u2060\ufeff"
# Extensions of a character: marks, variation selectors, skin tones, tags, joined characters.
_EXTEND = rf"(?:[{_MARKS}\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]|\u200d\S?)*+"
_CLUSTER = rf"(?:[\U0001f1e6-\U0001f1ff]{{2}}|\S){_EXTEND}"

_LETTER = rf"(?:[^\W_{_CJK}]|[{_MARKS}{_INVISIBLE}])"
_URL = rf"""(?:https?://|www\.)[^\s<>"{_CJK}]*[^\s<>"{_CJK}.,;:!?'\u2019)\]}}\u2026\u3002\uff0c]"""
_EMAIL = r"[a-z0-9._+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})++"
_NOT = rf"n['\u2019]t(?!{_LETTER})"
_CLITIC = rf"(?<=\w)(?:{_NOT}|['\u2019](?:[smdt]|re|ve|ll)(?!{_LETTER}))"
# A point joins digits (3.5, v1.2); a comma does so only before groups of three (1,000 but not 1,2).
_JOINT = r"(?<=\d)(?:\.(?=\d)|,(?=\d{3}(?!\d)))"

_UNITS = {
    "char": re.compile(_CLUSTER),
    "word": re.compile(
        rf"(?i:{_URL}|{_EMAIL}|(?<![a-z0-9_])[@#](?:{_LETTER}|_)++|{_CLITIC}|{_LETTER}+?(?={_NOT}))"
        rf"|{_LETTER}++(?:{_JOINT}{_LETTER}++)*+|{_CLUSTER}"
    ),
}


def tokenize(text: str, unit: str) -> list[tuple[int, int]]:
    """Return start and end (exclusive) of each token; no character but spaces is left out.

    Args:
        text: Raw text.
        unit: "word" keeps words, clitics ('m, n't), @mentions, #hashtags, URLs, e-mail addresses
            and numbers whole; any other symbol and each Han or kana character is a token. "char"
            makes each character a token, with its combining marks; an emoji sequence counts as one.
    """
    if unit not in _UNITS:
        raise UsageError(f"unknown unit {unit!r}; known: {', '.join(_UNITS)}")
    return [match.span() for match in _UNITS[unit].finditer(text)]
