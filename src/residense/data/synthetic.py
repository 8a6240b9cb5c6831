"""The synthetic corpus for tagging: sentences with personal data."""

import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from residense.data.grammar import Grammar
from residense.settings.bounds import Count, Positive

LABELS: Final = (
    *("PERSON", "COMPANY", "LOCATION", "ADDRESS", "DATE"),
    *("EMAIL", "PHONE", "ACCOUNT", "USERNAME", "JOB"),
)
Language = Literal["en", "zh"]
Sentence = tuple[list[str], list[str]]

_FAKER_HELD_OUT: Final = 30  # percent of each Faker pool that is withheld from training
_CAST_SIZE: Final = 100  # names that recur, as in real mailboxes
_CAST_SHARE: Final = 0.33  # of all names
_LOWER: Final = 0.10  # fraction of sentences in lower case
_UPPER: Final = 0.03  # fraction of sentences in upper case, or full width in Chinese
_TYPO: Final = 0.025  # fraction of tokens
# Probability that a punctuation mark is omitted.
_DROPPED: Final = {".": 0.15, ",": 0.06, "。": 0.15, "\uff0c": 0.15, "、": 0.08}

_SLOT: Final = re.compile(r"\{([^}]+)\}")
_WORD: Final = re.compile(
    r"https?://[\w./-]*\w"
    r"|(?:Mr|Mrs|Ms|Dr|Prof|Inc|Ltd|Co|Corp|St|Jr|Sep|Nov|(?:[A-Z]\.)*[A-Z])\.(?=\s|$|,)"
    r"|\d+(?:,\d{3})+(?:\.\d+)?"
    r"|\w+(?=n't\b)|n't\b|'(?:s|ll|re|ve|d|m)\b"
    r"|[@#+]?\w+(?:(?:==|[.@/_:&+-])\w+|'(?!(?:s|ll|re|ve|d|m|t)\b)\w+)*"
    r"|[^\w\s]"
)
_FULL_WIDTH: Final = {code: code + 0xFEE0 for code in map(ord, "0123456789-:+")}


@dataclass(frozen=True)
class Synthetic:
    """The synthetic corpus for tagging: generated sentences with personal data.

    Args:
        language: Language of the sentences; "en" is tokenized by word, "zh" by character.
        size: Number of sentences in all, split 80/10/10 into train, validation and test.
        seed: Seed of names, templates, held-out parts and noise.
    """

    language: Language = "en"
    size: Positive = 8000
    seed: Count = 0

    def splits(self) -> dict[str, list[Sentence]]:
        """Generate the "train", "validation" and "test" sentences as tokens with IOB2 tags."""
        grammar = _Sentences(self.language, random.Random(self.seed))
        return grammar.splits(self.size, grammar.sentences)


class _Sentences(Grammar):
    """Expand the grammar of one language into labeled, tokenized, noisy sentences.

    In a rule, `{PERSON}` is a labeled span, `{PERSON:word}` a labeled span drawn from another rule,
    and `{~word}` a rule as it looks in a login name. `faker COUNT METHOD LOCALES` stands for words
    that Faker generates. The cities of it_IT are not used, as they depend on the hash seed of the
    process.
    """

    def __init__(self, language: Language, rng: random.Random):
        super().__init__(f"templates_{language}.txt", rng)
        self.language = language
        seed = rng.randrange(2**32)
        for symbol, alternatives in self.every.items():
            if alternatives[0].startswith("faker "):
                self.add(symbol, _FAKER_HELD_OUT, _pool(seed, *alternatives[0].split()[1:]))
        pairs = self.every["twins"] if language == "zh" else []
        self.twins = {char: twin for pair in pairs for char, twin in (pair, pair[::-1])}
        self.cast: dict[str, list[str]] = {}
        self.cast = {label: [self._span(label) for _ in range(_CAST_SIZE)] for label in LABELS}

    def sentences(self, count: int) -> list[Sentence]:
        """Return random sentences."""
        return [self._sentence() for _ in range(count)]

    def _sentence(self) -> Sentence:
        tokens: list[str] = []
        tags: list[str] = []
        for label, parts in groupby(self._pieces("{sentence}"), lambda piece: piece[1] or "O"):
            text = "".join(text for text, _ in parts)
            new = _WORD.findall(text) if self.language == "en" else [*"".join(text.split())]
            tokens += new
            if label == "O":
                tags += ["O"] * len(new)
            else:
                tags += [f"{'I' if place else 'B'}-{label}" for place in range(len(new))]
        return self._noisy(tokens, tags)

    def _pieces(self, text: str, label: str | None = None) -> Iterator[tuple[str, str | None]]:
        """Yield the parts of an expanded alternative with labels; a span labels all inside it."""
        for place, part in enumerate(_SLOT.split(self.digits(self.choose(text)))):
            if place % 2 == 0:
                yield part, label
                continue
            name, _, symbol = part.rpartition(":")
            own = label or name or (symbol if symbol in LABELS else None)
            parts = self._pieces(self._draw(symbol.removeprefix("~")), own)
            if own is None:
                yield from parts
            else:
                whole = "".join(text for text, _ in parts)
                yield _login(whole) if symbol.startswith("~") else whole, own

    def _draw(self, symbol: str) -> str:
        if symbol in self.cast and self.rng.random() < _CAST_SHARE:
            return self.cast[symbol][int(_CAST_SIZE * self.rng.random() ** 2)]
        return self.rng.choice(self.rules[symbol])

    def _span(self, label: str) -> str:
        return "".join(text for text, _ in self._pieces(f"{{{label}}}"))

    def _noisy(self, tokens: list[str], tags: list[str]) -> Sentence:
        """Return a sentence as people type it: wrong case or width, typos, missing punctuation."""
        style = str
        roll = self.rng.random()
        if roll < _LOWER:
            style = str.lower
        elif roll < _LOWER + _UPPER:
            style = str.upper if self.language == "en" else _full_width
        kept: Sentence = ([], [])
        for token, tag in zip(tokens, tags, strict=True):
            if tag == "O" and self.rng.random() < _DROPPED.get(token, 0.0):
                continue
            if self.rng.random() < _TYPO:
                token = self.twins.get(token, token) if self.twins else self.typo(token, 4)
            kept[0].append(style(token))
            kept[1].append(tag)
        return kept


def _login(name: str) -> str:
    """Return a name as in e-mail addresses: lower-case ASCII letters and digits."""
    plain = unicodedata.normalize("NFKD", name).lower()
    return "".join(char for char in plain if char.isascii() and char.isalnum())


def _full_width(text: str) -> str:
    return text.translate(_FULL_WIDTH)


def _pool(seed: int, count: str, method: str, *locales: str) -> list[str]:
    """Return distinct words that Faker generates for each locale."""
    from faker import Faker

    words: list[str] = []
    for locale in locales:
        fake = Faker(locale)
        fake.seed_instance(seed)
        words += [str(getattr(fake, method)()) for _ in range(int(count))]
    return list(dict.fromkeys(words))
