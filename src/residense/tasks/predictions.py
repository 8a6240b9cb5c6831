"""Convert predicted tag ids to entities with character offsets and probabilities."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from residense.data.tokenize import tokenize
from residense.tags import Span, spans


class Tags(NamedTuple):
    """Predicted tags of one sentence.

    Attributes:
        place: Index of the sentence in the corpus.
        tags: Label id of each token.
        here: log p(y_t) of each token.
        after: log p(y_t | y_{t-1}) of each token.
    """

    place: int
    tags: list[int]
    here: list[float]
    after: list[float]


class Text(NamedTuple):
    """A text and the character offsets (start, end exclusive) of its tokens."""

    text: str
    offsets: list[tuple[int, int]]

    @classmethod
    def raw(cls, text: str, unit: str) -> "Text":
        """Split raw text into tokens of a unit: `word` or `char`."""
        return cls(text, tokenize(text, unit))

    @classmethod
    def joined(cls, tokens: Sequence[str], unit: str) -> "Text":
        """Join tokens to a text, by spaces unless they are single characters."""
        joint = "" if unit == "char" else " "
        ends = np.cumsum([len(token) + len(joint) for token in tokens]) - len(joint)
        return cls(
            joint.join(tokens),
            [(int(e) - len(t), int(e)) for t, e in zip(tokens, ends, strict=True)],
        )

    @property
    def tokens(self) -> list[str]:
        """The tokens."""
        return [self.text[start:end] for start, end in self.offsets]


def merge(predicted: Iterable[Tags], document: np.ndarray, num_documents: int) -> Iterator[Tags]:
    """Join the parts of long sentences: one `Tags` for each document, in order."""
    whole = [Tags(i, [], [], []) for i in range(num_documents)]
    for part in sorted(predicted):
        target = whole[document[part.place]]
        target.tags.extend(part.tags)
        target.here.extend(part.here)
        target.after.extend(part.after)
    return iter(whole)


def record(
    text: Text,
    predicted: Tags,
    labels: Sequence[str],
    scheme: str,
    gold: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return a text with its entities, or with its tags if these are not spans, as JSON."""
    tags = [labels[i] for i in predicted.tags]
    if scheme == "none":
        right = {} if gold is None else {"gold": list(gold)}
        return {"text": text.text, "tokens": text.tokens, "tags": tags} | right
    right = {} if gold is None else {"gold": [_place(text, span) for span in spans(gold)]}
    entities = [
        _place(text, span) | {"probability": _probability(span, predicted)} for span in spans(tags)
    ]
    return {"text": text.text, "entities": entities} | right


def _place(text: Text, span: Span) -> dict[str, Any]:
    start, end = text.offsets[span.start][0], text.offsets[span.end - 1][1]
    return {"start": start, "end": end, "type": span.type, "text": text.text[start:end]}


def _probability(span: Span, predicted: Tags) -> float:
    """Return the probability of all tags of a span."""
    log_probability = predicted.here[span.start] + sum(predicted.after[span.start + 1 : span.end])
    return round(math.exp(min(0.0, log_probability)), 4)
