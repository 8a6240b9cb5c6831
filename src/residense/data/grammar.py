"""Generate corpora from labeled grammars.

A grammar file has sections `== symbol [percent withheld from training]` of alternatives, one on
each line or separated by " | ". Withheld alternatives make the test split measure generalization
instead of memory.
"""

import random
import re
from collections.abc import Callable, Iterable
from importlib import resources
from typing import TypeVar

from residense.errors import UsageError

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SIDES = re.compile(r"<([^<>/]*)/([^<>/]*)>")
_DIGIT = re.compile(r"\\?#")

T = TypeVar("T")


class Grammar:
    """Rules that are expanded into random examples.

    In a rule, `[a|b]` is a choice, `#` a digit, `{word}` another rule, and `3* text` stands for
    three equal alternatives. A section `== one/two` defines two symbols, where `<a/b>` is `a` for
    the first and `b` for the second; both sides of a line are withheld together.

    Args:
        name: Name of the grammar file in this package.
        rng: Source of all random choices.

    Attributes:
        rules: Alternatives of each symbol to choose from; at first those for training.
        every: All alternatives of each symbol.
    """

    def __init__(self, name: str, rng: random.Random):
        self.rng = rng
        self.rules: dict[str, list[str]] = {}
        self.every: dict[str, list[str]] = {}
        text = (resources.files("residense.data") / name).read_text(encoding="utf-8")
        for section in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
            header, *lines = section.splitlines()
            symbols, _, percent = header.partition(" ")
            parts = [part.strip() for line in lines for part in line.split(" | ")]
            self.add(symbols, int(percent or 0), filter(None, parts))

    def splits(self, size: int, make: Callable[[int], list[T]]) -> dict[str, list[T]]:
        """Return training, validation and test examples, 80/10/10.

        Args:
            size: Number of examples in all.
            make: Returns a number of random examples.

        Raises:
            UsageError: `size` is less than 30.
        """
        if size < 30:
            raise UsageError(f"data.synthetic.size must be at least 30; got {size}")
        tenth = size // 10
        train = make(size - 2 * tenth)
        self.rules = self.every
        return {"train": train, "validation": make(tenth), "test": make(tenth)}

    def add(self, symbols: str, percent: int, alternatives: Iterable[str]) -> None:
        """Define a symbol, or two symbols separated by a slash.

        Args:
            symbols: The names.
            percent: Percentage of the alternatives that is withheld from training.
            alternatives: The alternatives.
        """
        lines = list(alternatives)
        self.rng.shuffle(lines)
        kept = len(lines) - len(lines) * percent // 100
        for side, symbol in enumerate(symbols.split("/"), 1):
            own = [_SIDES.sub(lambda match, side=side: match[side], line) for line in lines]
            self.rules[symbol] = _weighted(own[:kept])
            self.every[symbol] = _weighted(own)

    def choose(self, text: str) -> str:
        """Replace each choice with one of its options."""
        while "[" in text:
            text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), text)
        return text

    def digits(self, text: str) -> str:
        r"""Replace each `#` with a digit and each `\#` with `#`."""
        digit = self.rng.randrange
        return _DIGIT.sub(lambda match: str(digit(10)) if match[0] == "#" else "#", text)

    def typo(self, word: str, shortest: int) -> str:
        """Swap, drop or double letters inside a word of at least `shortest` letters."""
        if len(word) < shortest or not word.isalpha():
            return word
        at = self.rng.randrange(1, len(word) - 1)
        one, two = word[at : at + 2]
        return word[:at] + self.rng.choice([two + one, two, one + one + two]) + word[at + 2 :]


def _weighted(alternatives: Iterable[str]) -> list[str]:
    drawn: list[str] = []
    for alternative in alternatives:
        weight, star, text = alternative.partition("* ")
        drawn += [text] * int(weight) if star and weight.isdigit() else [alternative]
    return drawn
