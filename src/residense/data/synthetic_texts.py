"""The embedded corpus for text classification: customer messages, generated from a grammar.

`texts_en.txt` holds the grammar, and this file expands and spoils it. Most of its lines serve two classes with the
same words in another order, so a bag of words cannot reach what a sequence encoder can. A share of the lines and
of the word pools never reaches training.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Final, Literal

from residense.bounds import Count, Positive

# The share of each class; the symbols of the grammar bear the same names.
_SHARES: Final = {
    "late": 0.17,
    "early": 0.13,
    "credit": 0.18,
    "debit": 0.15,
    "praise": 0.15,
    "complaint": 0.16,
    "question": 0.06,
}
LABELS: Final = tuple(_SHARES)
Text = tuple[str, str]

_SHORTEST, _LONGEST = 5, 30  # words
_LOWER, _TYPO, _UNFINISHED = 0.12, 0.02, 0.10  # shares of texts, words and texts

_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
_SIDES: Final = re.compile(r"<([^<>/]*)/([^<>/]*)>")
_SLOT: Final = re.compile(r"\{(\w+?)([12]?)\}")
_START: Final = re.compile(r"(?:^|[.?!] )[a-z]")


@dataclass(frozen=True)
class SyntheticTexts:
    """The embedded corpus: generated customer messages with what each says, deterministic by seed.

    Args:
        language: Language of the texts; there are English ones.
        size: Number of texts in all, split 80/10/10 into train, validation and test.
        seed: Seed of everything drawn: labels, lines, held-out parts and noise.
    """

    language: Literal["en"] = "en"
    size: Positive = 6000
    seed: Count = 0

    def splits(self) -> dict[str, list[Text]]:
        """The "train", "validation" and "test" texts, each with its label; no text occurs twice."""
        grammar = _Grammar(random.Random(self.seed))
        tenth = self.size // 10
        train = grammar.texts(self.size - 2 * tenth)
        grammar.held_out = True
        return {"train": train, "validation": grammar.texts(tenth), "test": grammar.texts(tenth)}


@dataclass
class _Rule:
    """The alternatives of one symbol: those open to training, and all of them."""

    train: list[str] = field(default_factory=list)
    every: list[str] = field(default_factory=list)


class _Grammar:
    """Expands the grammar into distinct, noisy texts.

    In a rule, `[a|b]` is a choice, `#` a digit, `{word}` another rule, and `@` the message proper. A section
    `== one/two` fills two symbols, where `<a/b>` is `a` for the first and `b` for the second; both sides of a line
    are held out together, for a line known from one class alone would mislead. `{word1}` and `{word2}` are two
    different words, and in the order of the chain where the grammar lists them as `a < b < c`.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.held_out = rng, False
        self.seen: set[str] = set()
        self.rules: dict[str, _Rule] = {}
        for symbols, percent, lines in _sections():
            rng.shuffle(lines)
            kept = len(lines) - len(lines) * percent // 100
            for side, symbol in enumerate(symbols.split("/"), 1):
                own = [_SIDES.sub(lambda match, side=side: match[side], line) for line in lines]
                self.rules[symbol] = _Rule(own[:kept], own)

    def texts(self, count: int) -> list[Text]:
        """As many new texts, with their labels."""
        labels = self.rng.choices(LABELS, list(_SHARES.values()), k=count)
        return [(self._text(label), label) for label in labels]

    def _text(self, label: str) -> str:
        """A text of that class which was not drawn before."""
        while True:
            text = self._expand(self._draw("message").replace("@", f"{{{label}}}"))
            text = self._spoil(_START.sub(lambda match: match[0].upper(), text))
            if _SHORTEST <= len(text.split()) <= _LONGEST and text.lower() not in self.seen:
                self.seen.add(text.lower())
                return text

    def _expand(self, text: str) -> str:
        while "[" in text:
            text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), text)
        pairs = {symbol: self._two(symbol) for symbol, place in _SLOT.findall(text) if place}

        def fill(match: re.Match[str]) -> str:
            symbol, place = match.groups()
            return pairs[symbol][int(place) - 1] if place else self._expand(self._one(symbol))

        text = "".join(
            str(self.rng.randrange(10)) if char == "#" else char for char in _SLOT.sub(fill, text)
        )
        return re.sub(r" +(?=[ .,?]|$)", "", text)

    def _draw(self, symbol: str) -> str:
        rule = self.rules[symbol]
        return self.rng.choice(rule.every if self.held_out else rule.train)

    def _one(self, symbol: str) -> str:
        return self.rng.choice(self._draw(symbol).split(" < "))

    def _two(self, symbol: str) -> list[str]:
        chain = self._draw(symbol).split(" < ")
        if len(chain) > 1:
            return [chain[place] for place in sorted(self.rng.sample(range(len(chain)), 2))]
        rule = self.rules[symbol]
        return self.rng.sample(rule.every if self.held_out else rule.train, 2)

    def _spoil(self, text: str) -> str:
        """The text as people type it: careless case, typos and no full stop at the end."""
        words = [self._typo(word) if self.rng.random() < _TYPO else word for word in text.split()]
        text = " ".join(words)
        if self.rng.random() < _UNFINISHED:
            text = text.rstrip(".?")
        return text.lower() if self.rng.random() < _LOWER else text

    def _typo(self, word: str) -> str:
        if len(word) < 5 or not word.isalpha():
            return word
        at = self.rng.randrange(1, len(word) - 1)
        before, one, two, after = word[:at], word[at], word[at + 1], word[at + 2 :]
        return before + self.rng.choice([two + one, two, one + one + two]) + after


def _sections() -> Iterator[tuple[str, int, list[str]]]:
    """Each rule of the grammar file: its symbols, the percent withheld from training and its alternatives."""
    text = (resources.files("residense.data") / "texts_en.txt").read_text(encoding="utf-8")
    for section in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        header, *lines = section.splitlines()
        symbols, _, percent = header.partition(" ")
        yield (
            symbols,
            int(percent or 0),
            [part.strip() for line in lines for part in line.split(" | ") if part.strip()],
        )
