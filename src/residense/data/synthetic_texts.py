"""The synthetic corpus for text classification: customer messages.

Most lines of the grammar belong to two classes, with the same words in another order, so a bag of
words is worse than a sequence encoder.
"""

import random
import re
from dataclasses import dataclass
from typing import Final, Literal

from residense.data.grammar import Grammar
from residense.settings.bounds import Count, Positive

# Frequency of each class; the symbols of the grammar have the same names.
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

_SHORTEST: Final = 5  # words
_LONGEST: Final = 30
_LOWER: Final = 0.12  # fraction of texts in lower case
_TYPO: Final = 0.02  # fraction of words
_UNFINISHED: Final = 0.10  # fraction of texts without a full stop

_SLOT: Final = re.compile(r"\{(\w+?)([12]?)\}")
_START: Final = re.compile(r"(?:^|[.?!] )[a-z]")


@dataclass(frozen=True)
class SyntheticTexts:
    """The synthetic corpus for text classification: generated customer messages.

    Args:
        language: Language of the texts.
        size: Number of texts in all, split 80/10/10 into train, validation and test.
        seed: Seed of labels, lines, held-out parts and noise.
    """

    language: Literal["en"] = "en"
    size: Positive = 6000
    seed: Count = 0

    def splits(self) -> dict[str, list[Text]]:
        """Generate the "train", "validation" and "test" texts with labels; no text occurs twice."""
        grammar = _Texts(random.Random(self.seed))
        return grammar.splits(self.size, grammar.texts)


class _Texts(Grammar):
    """Expand the grammar into distinct, noisy texts.

    In a rule, `@` is the message proper. `{word1}` and `{word2}` are two different words, in the
    order of the chain if the grammar lists them as `a < b < c`.
    """

    def __init__(self, rng: random.Random):
        super().__init__("texts_en.txt", rng)
        self.seen: set[str] = set()

    def texts(self, count: int) -> list[Text]:
        """Return random texts with their labels."""
        labels = self.rng.choices(LABELS, list(_SHARES.values()), k=count)
        return [(self._text(label), label) for label in labels]

    def _text(self, label: str) -> str:
        """Return a new text of a class."""
        while True:
            message = self.rng.choice(self.rules["message"])
            text = self._expand(message.replace("@", f"{{{label}}}"))
            text = self._noisy(_START.sub(lambda match: match[0].upper(), text))
            if _SHORTEST <= len(text.split()) <= _LONGEST and text.lower() not in self.seen:
                self.seen.add(text.lower())
                return text

    def _expand(self, text: str) -> str:
        text = self.choose(text)
        pairs = {symbol: self._two(symbol) for symbol, place in _SLOT.findall(text) if place}

        def fill(match: re.Match[str]) -> str:
            symbol, place = match.groups()
            return pairs[symbol][int(place) - 1] if place else self._expand(self._one(symbol))

        return re.sub(r" +(?=[ .,?]|$)", "", self.digits(_SLOT.sub(fill, text)))

    def _one(self, symbol: str) -> str:
        return self.rng.choice(self.rng.choice(self.rules[symbol]).split(" < "))

    def _two(self, symbol: str) -> list[str]:
        chain = self.rng.choice(self.rules[symbol]).split(" < ")
        if len(chain) > 1:
            return [chain[place] for place in sorted(self.rng.sample(range(len(chain)), 2))]
        return self.rng.sample(self.rules[symbol], 2)

    def _noisy(self, text: str) -> str:
        """Return a text as people type it: lower case, typos, no full stop at the end."""
        words = [self.typo(word, 5) if self.rng.random() < _TYPO else word for word in text.split()]
        text = " ".join(words)
        if self.rng.random() < _UNFINISHED:
            text = text.rstrip(".?")
        return text.lower() if self.rng.random() < _LOWER else text
