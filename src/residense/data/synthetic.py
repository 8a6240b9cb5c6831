"""The embedded corpus: sentences with personal data, generated from a labelled grammar.

`templates_en.txt` and `templates_zh.txt` hold the grammar, Faker adds names and account numbers, and this
file expands, tokenises and spoils the result. A share of the templates and of the word pools never reaches
training, so the test split measures generalisation and not memory.
"""

import random
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import Final, Literal

from residense.bounds import Count, Positive

LABELS: Final = (
    "PERSON",
    "COMPANY",
    "LOCATION",
    "ADDRESS",
    "DATE",
    "EMAIL",
    "PHONE",
    "ACCOUNT",
    "USERNAME",
    "JOB",
)
Language = Literal["en", "zh"]
Sentence = tuple[list[str], list[str]]

_OUTSIDE: Final = "O"
_FAKER_HELD_OUT: Final = 30  # percent of every Faker pool that training never sees
_CAST_SIZE: Final = 100  # real mailboxes mention the same people and firms again and again
_CAST_SHARE: Final = 0.33
_LOWER, _UPPER, _TYPO = 0.10, 0.03, 0.025  # shares of sentences, sentences and tokens
# The share of each punctuation mark that writers leave out.
_DROPPED: Final = {".": 0.15, ",": 0.06, "。": 0.15, "\uff0c": 0.15, "、": 0.08}

_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
_SLOT: Final = re.compile(r"\{([^}]+)\}")
_DIGIT: Final = re.compile(r"\\?#")
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
    """The embedded corpus: generated sentences with personal data, deterministic by seed.

    Args:
        language: Language of the sentences; "en" is tokenised by word, "zh" by character.
        size: Number of sentences in all, split 80/10/10 into train, validation and test.
        seed: Seed of everything drawn: names, templates, held-out parts and noise.
    """

    language: Language = "en"
    size: Positive = 8000
    seed: Count = 0

    def splits(self) -> dict[str, list[Sentence]]:
        """The "train", "validation" and "test" sentences, each as tokens and their IOB2 tags."""
        grammar = _Grammar(self.language, random.Random(self.seed))
        tenth = self.size // 10
        train = [grammar.sentence() for _ in range(self.size - 2 * tenth)]
        grammar.held_out = True
        validation, test = ([grammar.sentence() for _ in range(tenth)] for _ in range(2))
        return {"train": train, "validation": validation, "test": test}


@dataclass(frozen=True)
class _Rule:
    """The alternatives of one symbol: those open to training, and all of them."""

    train: list[str]
    every: list[str]


class _Grammar:
    """Expands the grammar of one language into labelled, tokenised, noisy sentences.

    In a rule, `[a|b]` is a choice, `#` a digit, `{word}` another rule, `{~word}` that rule as it looks in a
    login name, `{PERSON}` a labelled span and `{PERSON:word}` a labelled span drawn from another rule.
    """

    def __init__(self, language: Language, rng: random.Random) -> None:
        self.language, self.rng, self.held_out = language, rng, False
        self.rules = {
            symbol: self._rule(held, lines) for symbol, held, lines in _sections(language)
        }
        for symbol, words in _faker_pools(language, rng.randrange(2**32)).items():
            self.rules[symbol] = self._rule(_FAKER_HELD_OUT, words)
        twins = self.rules["twins"].every if language == "zh" else []
        self.twins = {char: twin for pair in twins for char, twin in (pair, pair[::-1])}
        self.cast: dict[str, list[str]] = {}
        self.cast = {
            label: [self._text(f"{{{label}}}") for _ in range(_CAST_SIZE)] for label in LABELS
        }

    def sentence(self) -> Sentence:
        """One sentence as tokens and IOB2 tags."""
        tokens: list[str] = []
        tags: list[str] = []
        for label, parts in groupby(self._pieces("{sentence}"), key=_label):
            text = "".join(text for text, _ in parts)
            new = _WORD.findall(text) if self.language == "en" else "".join(text.split())
            tokens += new
            tags += [
                f"{'I' if place else 'B'}-{label}" if label else _OUTSIDE
                for place in range(len(new))
            ]
        return self._spoil(tokens, tags)

    def _pieces(self, text: str, label: str | None = None) -> Iterator[tuple[str, str | None]]:
        """The parts of an expanded alternative with their labels; a labelled span labels all inside it."""
        for place, part in enumerate(_SLOT.split(self._choose(text))):
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

    def _choose(self, text: str) -> str:
        while "[" in text:
            text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), text)
        return _DIGIT.sub(
            lambda match: "#" if match[0] != "#" else str(self.rng.randrange(10)), text
        )

    def _draw(self, symbol: str) -> str:
        if symbol in self.cast and self.rng.random() < _CAST_SHARE:
            return self.cast[symbol][int(_CAST_SIZE * self.rng.random() ** 2)]
        rule = self.rules[symbol]
        return self.rng.choice(rule.every if self.held_out else rule.train)

    def _text(self, slot: str) -> str:
        return "".join(text for text, _ in self._pieces(slot))

    def _rule(self, held_out_percent: int, lines: Iterable[str]) -> _Rule:
        alternatives = list(dict.fromkeys(lines))
        self.rng.shuffle(alternatives)
        kept = len(alternatives) - len(alternatives) * held_out_percent // 100
        return _Rule(_weighted(alternatives[:kept]), _weighted(alternatives))

    def _spoil(self, tokens: list[str], tags: list[str]) -> Sentence:
        """The sentence as people type it: careless case or width, typos and missing punctuation."""
        style, roll = str, self.rng.random()
        if roll < _LOWER:
            style = str.lower
        elif roll < _LOWER + _UPPER:
            style = str.upper if self.language == "en" else _full_width
        spoilt: Sentence = ([], [])
        for token, tag in zip(tokens, tags, strict=True):
            if tag == _OUTSIDE and self.rng.random() < _DROPPED.get(token, 0.0):
                continue
            spoilt[0].append(style(self._typo(token) if self.rng.random() < _TYPO else token))
            spoilt[1].append(tag)
        return spoilt

    def _typo(self, token: str) -> str:
        if self.language == "zh":
            return self.twins.get(token, token)
        if len(token) < 4 or not token.isalpha():
            return token
        at = self.rng.randrange(1, len(token) - 1)
        before, one, two, after = token[:at], token[at], token[at + 1], token[at + 2 :]
        return before + self.rng.choice([two + one, two, one + one + two]) + after


def _label(piece: tuple[str, str | None]) -> str | None:
    return None if piece[1] == _OUTSIDE else piece[1]


def _sections(language: Language) -> Iterator[tuple[str, int, list[str]]]:
    """Each rule of the grammar file: its symbol, the percent withheld from training and its alternatives."""
    path = resources.files("residense.data") / f"templates_{language}.txt"
    text = path.read_text(encoding="utf-8")
    for section in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        header, *lines = section.splitlines()
        symbol, _, percent = header.partition(" ")
        alternatives = [part.strip() for line in lines for part in line.split(" | ")]
        yield symbol, int(percent or 0), [part for part in alternatives if part]


def _weighted(alternatives: Iterable[str]) -> list[str]:
    """Repeats an alternative written as `3* text` three times."""
    drawn: list[str] = []
    for alternative in alternatives:
        weight, star, text = alternative.partition("* ")
        drawn += [text] * int(weight) if star and weight.isdigit() else [alternative]
    return drawn


def _login(name: str) -> str:
    """A name as logins and e-mail addresses spell it: lower-case ASCII letters and digits."""
    plain = unicodedata.normalize("NFKD", name).lower()
    return "".join(char for char in plain if char.isascii() and char.isalnum())


def _full_width(text: str) -> str:
    return text.translate(_FULL_WIDTH)


def _faker_pools(language: Language, seed: int) -> dict[str, list[str]]:
    """Word pools from Faker by the symbol under which the grammar uses them."""
    from faker import Faker

    def pool(count: int, method: str, *locales: str) -> list[str]:
        words: list[str] = []
        for locale in locales:
            fake = Faker(locale)
            fake.seed_instance(seed)
            words += [str(getattr(fake, method)()) for _ in range(count)]
        return list(dict.fromkeys(words))

    if language == "zh":
        return {
            "rare_surname": pool(400, "last_name", "zh_CN"),
            "given": pool(300, "first_name", "zh_CN"),
            "firm": pool(300, "company_prefix", "zh_CN"),
            "real_city": pool(300, "city_name", "zh_CN"),
            "real_district": pool(100, "district", "zh_CN"),
        }
    west = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "pl_PL", "nl_NL", "sv_SE", "en_IN")
    return {
        "first": pool(120, "first_name", *west, "it_IT"),
        "last": pool(140, "last_name", *west, "it_IT"),
        "real_city": pool(
            60, "city", *west
        ),  # not it_IT: its cities depend on the hash seed of the process
        "real_country": pool(60, "country", "en_US"),
        "real_street": pool(90, "street_name", "en_US", "en_GB", "de_DE"),
        "iban": pool(400, "iban", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "pl_PL", "nl_NL"),
    }
