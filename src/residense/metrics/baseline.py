"""Baselines of a tagger: looking up the training entities, and scores on unseen entities."""

from collections.abc import Iterable, Mapping, Sequence

from residense.data.vocabulary import entity_key, entity_tokens
from residense.tags import Span


class Trie:
    """A prefix tree that finds known entities in sentences.

    Args:
        entities: The training entities as text, each with its most frequent type.
    """

    __slots__ = ("after", "type")

    def __init__(self, entities: Mapping[str, str]):
        self.type: str | None = None  # of the entity that ends here
        self.after: dict[str, Trie] = {}  # by the next token
        for key, kind in entities.items():
            node = self
            for token in entity_tokens(key):
                node = node.after.setdefault(token, Trie({}))
            node.type = kind

    def look_up(self, tokens: Sequence[str]) -> list[Span]:
        """Return the known entities in a sentence, from left to right, the longest match first."""
        found: list[Span] = []
        start = 0
        while start < len(tokens):
            match = None
            node = self
            end = start
            while end < len(tokens) and (node := node.after.get(tokens[end])) is not None:
                end += 1
                match = Span(start, end, node.type) if node.type is not None else match
            if match is not None:
                found.append(match)
            start = start + 1 if match is None else match.end
        return found


def unseen(tokens: Sequence[str], found: Iterable[Span], entities: Mapping[str, str]) -> list[Span]:
    """Return the entities whose text is not an entity in training."""
    return [span for span in found if entity_key(tokens[span.start : span.end]) not in entities]


def span_scores(
    gold: Iterable[Sequence[Span]], found: Iterable[Sequence[Span]]
) -> dict[str, float]:
    """Return micro precision, recall, F1 and the number of gold spans."""
    hits = expected = predicted = 0
    for right, guess in zip(gold, found, strict=True):
        hits += len(set(right) & set(guess))
        expected += len(right)
        predicted += len(guess)
    return {
        "precision": hits / max(1, predicted),
        "recall": hits / max(1, expected),
        "f1": 2 * hits / max(1, predicted + expected),
        "support": expected,
    }
