"""Generate corpora from labeled grammars.

A grammar file has sections `== symbol [percent withheld from training]` of alternatives, one per line or separated by
" | ". A share of the alternatives never reaches training, so the test split measures generalization, not memory.
"""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib import resources
from typing import Generic, NamedTuple, TypeVar

from residense.errors import UsageError

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SIDES = re.compile(r"<([^<>/]*)/([^<>/]*)>")
_DIGIT = re.compile(r"\\?#")

T = TypeVar("T")


class Rule(NamedTuple):
    """The alternatives of a symbol: those for training, and all of them."""

    train: list[str]
    every: list[str]


class Grammar(ABC, Generic[T]):
    """Expand a grammar into random examples.

    In a rule, `[a|b]` is a choice, `#` a digit, `{word}` another rule, and `3* text` stands for three equal
    alternatives. A section `== one/two` defines two symbols, where `<a/b>` is `a` for the first and `b` for the
    second; both sides of a line are withheld together.

    Args:
        name: Name of the grammar file in this package.
        rng: Source of all random choices.
    """

    def __init__(self, name: str, rng: random.Random):
        self.rng = rng
        self.held_out = False
        self.rules: dict[str, Rule] = {}
        text = (resources.files("residense.data") / name).read_text(encoding="utf-8")
        for section in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
            header, *lines = section.splitlines()
            symbols, _, percent = header.partition(" ")
            parts = [part.strip() for line in lines for part in line.split(" | ")]
            self.add(symbols, int(percent or 0), filter(None, parts))

    @abstractmethod
    def examples(self, count: int) -> list[T]:
        """Return random examples."""

    def splits(self, size: int) -> dict[str, list[T]]:
        """Return training, validation and test examples, 80/10/10.

        Raises:
            ValueError: There are fewer than 30 examples.
        """
        if size < 30:
            raise UsageError(f"data.synthetic.size must be at least 30; got {size}")
        tenth = size // 10
        train = self.examples(size - 2 * tenth)
        self.held_out = True
        return {"train": train, "validation": self.examples(tenth), "test": self.examples(tenth)}

    def add(self, symbols: str, percent: int, alternatives: Iterable[str]) -> None:
        """Define a symbol, or two symbols separated by a slash.

        Args:
            symbols: The names.
            percent: How many of the alternatives training never sees.
            alternatives: The alternatives.
        """
        lines = list(alternatives)
        self.rng.shuffle(lines)
        kept = len(lines) - len(lines) * percent // 100
        for side, symbol in enumerate(symbols.split("/"), 1):
            own = [_SIDES.sub(lambda match, side=side: match[side], line) for line in lines]
            self.rules[symbol] = Rule(_weighted(own[:kept]), _weighted(own))

    def alternatives(self, symbol: str) -> list[str]:
        """Return the alternatives of a symbol that may be drawn."""
        rule = self.rules[symbol]
        return rule.every if self.held_out else rule.train

    def choose(self, text: str) -> str:
        """Replace each choice with one of its options."""
        while "[" in text:
            text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), text)
        return text

    def digits(self, text: str) -> str:
        r"""Replace each `#` with a digit and each `\#` with `#`."""
        return _DIGIT.sub(
            lambda match: "#" if match[0] != "#" else str(self.rng.randrange(10)), text
        )

    def typo(self, word: str, shortest: int) -> str:
        """Swap, drop or double letters inside a word of at least `shortest` letters."""
        if len(word) < shortest or not word.isalpha():
            return word
        at = self.rng.randrange(1, len(word) - 1)
        one = word[at]
        two = word[at + 1]
        middle = self.rng.choice([two + one, two, one + one + two])
        return word[:at] + middle + word[at + 2 :]


def _weighted(alternatives: Iterable[str]) -> list[str]:
    drawn: list[str] = []
    for alternative in alternatives:
        weight, star, text = alternative.partition("* ")
        drawn += [text] * int(weight) if star and weight.isdigit() else [alternative]
    return drawn
