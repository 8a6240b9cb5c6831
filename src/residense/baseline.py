"""What a tagger is held against: looking entities up, and how it does on entities never seen in training."""

from collections.abc import Iterable, Mapping, Sequence

from residense.data.schemes import Span
from residense.data.vocabulary import entity_key


def look_up(tokens: Sequence[str], entities: Mapping[str, str], longest: int) -> list[Span]:
    """Entities found by their spelling alone: the longest match first, from left to right.

    Args:
        tokens: of the sentence.
        entities: spellings of the training entities, each with its most frequent type.
        longest: tokens of the longest of them.
    """
    found, start = [], 0
    while start < len(tokens):
        ends = range(min(len(tokens), start + longest), start, -1)
        end = next((end for end in ends if entity_key(tokens[start:end]) in entities), start)
        if end > start:
            found.append(Span(start, end, entities[entity_key(tokens[start:end])]))
        start = max(end, start + 1)
    return found


def unseen(tokens: Sequence[str], found: Iterable[Span], entities: Mapping[str, str]) -> list[Span]:
    """Those entities whose spelling is no entity in training."""
    return [span for span in found if entity_key(tokens[span.start : span.end]) not in entities]


def span_scores(gold: Iterable[Sequence[Span]], found: Iterable[Sequence[Span]]) -> dict[str, float]:
    """Micro precision, recall, F1 and the number of gold spans."""
    hits = expected = predicted = 0
    for right, guess in zip(gold, found, strict=True):
        hits += len(set(right) & set(guess))
        expected, predicted = expected + len(right), predicted + len(guess)
    return {
        "precision": hits / max(1, predicted),
        "recall": hits / max(1, expected),
        "f1": 2 * hits / max(1, predicted + expected),
        "support": expected,
    }
