"""From tag ids back to text: exact offsets, probabilities of whole spans, and split sentences put together."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residense.data.corpus import Corpus
from residense.tags import encode, spans
from residense.tasks.predictions import Tags, Text, merge, record

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
WORDS = ["New", "York", "is", "n't", "Zürich", "纽约", "👍🏽", "e\u0301te\u0301", "日"]


def predicted(tags: list[str], index: int = 0, labels: list[str] = LABELS) -> Tags:
    here = [-0.1 * (i + 1) for i in range(len(tags))]
    after = [-0.01 * (i + 1) for i in range(len(tags))]
    return Tags(index, [labels.index(tag) for tag in tags], here, after)


@pytest.mark.parametrize("unit", ["word", "char"])
@given(
    st.lists(
        st.sampled_from(WORDS)
        | st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1)
    )
)
def test_joined_tokens_are_at_their_offsets(unit: str, tokens: list[str]) -> None:
    text = Text.joined(tokens, unit)
    assert text.tokens == tokens
    assert text.text == ("" if unit == "char" else " ").join(tokens)


@pytest.mark.parametrize(
    ("text", "unit", "tokens"),
    [
        ("  New York isn't\tbig. ", "word", ["New", "York", "is", "n't", "big", "."]),
        ("我在纽约", "char", ["我", "在", "纽", "约"]),
        ("我 在👍🏽。", "char", ["我", "在", "👍🏽", "。"]),
        ("   ", "word", []),
        ("", "char", []),
    ],
)
def test_raw_text_keeps_its_characters_and_its_tokens_their_places(
    text: str, unit: str, tokens: list[str]
) -> None:
    found = Text.raw(text, unit)
    assert found.text == text
    assert found.tokens == tokens


@pytest.mark.parametrize("unit", ["word", "char"])
@pytest.mark.parametrize("seed", range(10))
def test_entities_are_the_text_between_their_offsets(unit: str, seed: int) -> None:
    source = random.Random(seed)
    tokens = source.choices(WORDS, k=12)
    tags = source.choices(LABELS, k=12)
    text = Text.joined(tokens, unit)
    found = record(text, predicted(tags), LABELS, "IOB2", tags)
    assert found["text"] == text.text
    joint = "" if unit == "char" else " "
    for entity, span in zip(found["entities"], spans(tags), strict=True):
        assert found["text"][entity["start"] : entity["end"]] == entity["text"]
        assert entity["text"] == joint.join(tokens[span.start : span.end])
        assert entity["type"] == span.type
    places = [
        {key: entity[key] for key in ("start", "end", "type", "text")}
        for entity in found["entities"]
    ]
    assert found["gold"] == places
    assert json.loads(json.dumps(found)) == found


def test_raw_text_inside_an_entity_is_kept_as_written() -> None:
    text = Text.raw("in  New\t York.", "word")
    found = record(text, predicted(["O", "B-LOC", "I-LOC", "O"]), LABELS, "IOB2")
    assert [entity["text"] for entity in found["entities"]] == ["New\t York"]
    assert "gold" not in found


def test_the_probability_of_an_entity_is_that_of_its_whole_span() -> None:
    chances = Tags(
        0,
        [1, 2, 2, 3, 0],
        *([math.log(p) for p in row] for row in ([0.9, 0.5, 0.5, 0.8, 1], [0.7, 0.6, 0.5, 0.3, 1])),
    )
    found = record(Text.joined(list("abcde"), "char"), chances, LABELS, "IOB2")
    assert [entity["probability"] for entity in found["entities"]] == [
        round(0.9 * 0.6 * 0.5, 4),
        0.8,
    ]


def test_rounding_never_gives_more_than_certainty() -> None:
    chances = Tags(0, [1, 2], [1e-3, 0.0], [1e-3, 1e-3])
    found = record(Text.joined(["a", "b"], "word"), chances, LABELS, "IOB2")
    assert [entity["probability"] for entity in found["entities"]] == [1.0]


@pytest.mark.parametrize("gold", [None, ["X", "Y"]])
def test_without_a_scheme_each_token_has_its_tag(gold: list[str] | None) -> None:
    found = record(
        Text.joined(["a", "bc"], "word"),
        predicted(["Y", "Y"], labels=["X", "Y"]),
        ["X", "Y"],
        "none",
        gold,
    )
    expected = {"text": "a bc", "tokens": ["a", "bc"], "tags": ["Y", "Y"]}
    assert found == (expected if gold is None else expected | {"gold": ["X", "Y"]})


@pytest.mark.parametrize("scheme", ["IOBES", "BMES"])
def test_every_scheme_spells_the_same_entities(scheme: str) -> None:
    tags = ["B-LOC", "I-LOC", "O", "B-PER", "B-LOC", "I-LOC", "I-LOC"]
    other = encode(spans(tags), len(tags), scheme)
    labels, text = sorted(set(other)), Text.joined(list("abcdefg"), "word")
    assert record(text, predicted(other, labels=labels), labels, scheme) == record(
        text, predicted(tags), LABELS, "IOB2"
    )


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_long_sentences_are_put_together_in_any_order(seed: int) -> None:
    source = random.Random(seed)
    documents = [[f"{i}.{t}" for t in range(source.randint(1, 30))] for i in range(9)]
    documents.insert(4, [])  # a blank line
    corpus = Corpus.build(((tokens, []) for tokens in documents), "none", 7)
    assert len(corpus) > len(documents)
    parts = []
    for index, (start, end) in enumerate(zip(corpus.offsets, corpus.offsets[1:], strict=False)):
        ids = corpus.tokens[start:end].tolist()
        parts.append(Tags(index, ids, [-float(i) for i in ids], [float(i) for i in ids]))
    source.shuffle(parts)
    found = list(merge(parts, corpus.document, len(documents)))
    assert [tags.place for tags in found] == list(range(len(documents)))
    assert [[corpus.forms[i] for i in tags.tags] for tags in found] == documents
    assert all(tags.here == [-float(i) for i in tags.tags] for tags in found)
    assert all(tags.after == [float(i) for i in tags.tags] for tags in found)
