"""JSON lines and data sets: tokens with tags and texts with spans, and every fault with its line."""

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from residense.data.readers import read as read_file
from residense.data.readers.file import CorpusError, File
from residense.data.readers.hub import load_splits
from residense.data.readers.records import tag_examples
from residense.data.tokenize import tokenize
from residense.tags import Span, spans

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., SimpleNamespace]


def jsonl(*records: object) -> str:
    return "\n\n".join(json.dumps(record) for record in records)


@pytest.mark.parametrize("key", ["tags", "ner_tags", "labels"])
def test_json_lines_of_tokens_are_read(write: Write, key: str, read: Read) -> None:
    reading = read(
        write("a.jsonl", jsonl({"tokens": ["EU"], key: ["B-ORG"]}, {"tokens": ["x"], key: ["O"]}))
    )
    assert [(s.tokens, s.tags, s.line) for s in reading.sentences] == [
        (["EU"], ["B-ORG"], 1),
        (["x"], ["O"], 3),
    ]


@pytest.mark.parametrize(
    "span",
    [
        {"start": 0, "end": 8, "label": "LOC"},
        {"start": 0, "end": 8, "type": "LOC"},
        [0, 8, "LOC"],
        [0, 9, "LOC"],
    ],
)
def test_json_lines_of_texts_are_tokenised_and_aligned(
    write: Write, span: object, read: Read
) -> None:
    path = write(
        "a.jsonl.gz", gzip.compress(jsonl({"text": "New York isn't big", "spans": [span]}).encode())
    )
    sentence = read(path).sentences[0]
    assert sentence.tokens == ["New", "York", "is", "n't", "big"]
    assert sentence.tags == ["B-LOC", "I-LOC", "O", "O", "O"]
    assert sentence.text == "New York isn't big"
    assert sentence.offsets == [(0, 3), (4, 8), (9, 11), (11, 14), (15, 18)]


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Bob met 叶老桂", "label": {"name": {"叶老桂": [[8, 10]], "Bob": [[0, 2]]}}},
        {"text": "Bob met 叶老桂", "label": [[8, 11, "name"], [0, 3, "name"]]},
        {"text": "Bob met 叶老桂", "labels": [[0, 3, "name"], [8, 11, "name"]]},
        {"text": "Bob met 叶老桂", "entities": [[0, 3, "name"], [8, 11, "name"]], "label": "x"},
    ],
    ids=["CLUENER", "doccano", "doccano labels", "entities"],
)
def test_the_usual_formats_of_spans_are_read_by_name(
    write: Write, record: object, read: Read
) -> None:
    (sentence,) = read(write("a.jsonl", jsonl(record))).sentences
    assert spans(sentence.tags) == [Span(0, 1, "name"), Span(2, 5, "name")]


def test_columns_of_json_lines_may_be_chosen(write: Write, read: Read) -> None:
    path = write("a.jsonl", jsonl({"words": ["a"], "pos": ["DET"], "tags": ["O"]}))
    assert read(path, "words", "pos").tags == ["DET"]
    assert read(path, "words").tags == ["O"]
    with pytest.raises(
        CorpusError, match=r"a\.jsonl:1: no tokens and tags, .*choose `--data.tag_column`"
    ):
        read(path, "words", "gone")


def test_unlabelled_json_lines_need_no_tags(write: Write, read: Read) -> None:
    reading = read(write("a.jsonl", jsonl({"text": "Hi you"}, {"tokens": ["Hi"]})), labeled=False)
    assert [(s.tokens, s.tags) for s in reading.sentences] == [(["Hi", "you"], []), (["Hi"], [])]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "no object"),
        ({"words": []}, "no tokens and tags, or text and spans, read .*words"),
        ({"tokens": [], "tags": []}, "no list of strings"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "empty string"),
        ({"tokens": ["a"]}, "no tokens and tags"),
        (
            {"tokens": ["a"], "tags": [0]},
            "no list of strings, read .0.; .*names of tags, not numbers",
        ),
        ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens but 2 tags"),
        ({"text": " ", "spans": []}, "no text"),
        ({"text": "a"}, "no tokens and tags, or text and spans, .*choose `--data.tag_column`"),
        ({"text": "a", "spans": [[0, 2, "X"]]}, "not a span in this text"),
        ({"text": "a", "spans": [{"start": 0, "end": 1}]}, "not a span in this text"),
        ({"text": "a", "label": {"X": {"a": [[0, 1]]}}}, "not a span in this text"),
        ({"text": "a", "label": {"X": {"a": [0]}}}, "not a span in this text"),
        ({"text": "a", "label": "X"}, "no tokens and tags, or text and spans"),
        ({"text": "a b", "spans": [[1, 2, "X"]]}, "span of nothing but spaces"),
        ({"text": "ab c", "spans": [[0, 1, "X"]]}, "span 'a' begins or ends inside a token"),
        ({"text": "a b", "spans": [[0, 1, "X"], [0, 3, "Y"]]}, "overlapping spans"),
        ({"tokens": ["\ud800"], "tags": ["O"]}, "half a surrogate pair"),
    ],
)
def test_malformed_json_lines_are_reported_with_their_line(
    write: Write, record: object, message: str, read: Read
) -> None:
    with pytest.raises(CorpusError, match=rf"a\.jsonl:3: {message}"):
        read(write("a.jsonl", jsonl({"tokens": ["a"], "tags": ["O"]}, record)))


@pytest.mark.parametrize("line", ['{"tokens": ["a"', "[" * 100_000])
def test_what_is_not_json_is_reported_with_its_line(write: Write, line: str, read: Read) -> None:
    with pytest.raises(CorpusError, match=r"a\.jsonl:2: not JSON"):
        read(write("a.jsonl", "\n" + line))


@pytest.mark.parametrize(
    ("record", "expected", "repairs"),
    [
        (
            {"text": "ab c", "spans": [[0, 1, "X"]]},
            [Span(0, 1, "X")],
            "span widened to whole tokens",
        ),
        (
            {"text": "a b", "spans": [[0, 1, "X"], [0, 3, "Y"]]},
            [Span(0, 2, "Y")],
            "of overlapping spans the longer kept",
        ),
        (
            {"text": "\ud800 b", "spans": [[2, 3, "X"]]},
            [Span(1, 2, "X")],
            "half a surrogate pair read as U+FFFD",
        ),
    ],
)
def test_json_lines_are_repaired(
    write: Write, record: object, expected: list[Span], repairs: str, read: Read
) -> None:
    reading = read(write("a.jsonl", jsonl(record)), repair=True)
    assert spans(reading.sentences[0].tags) == expected
    assert reading.repairs == {repairs: 1}


def overlapping(span: Span, other: Span) -> bool:
    return span.start < other.end and other.start < span.end


@given(st.text("ab .", min_size=1, max_size=30), st.data())
def test_spans_are_those_that_comparing_each_with_each_gives(
    text: str, data: st.DataObject
) -> None:
    places = tokenize(text, "word")
    bounds = st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text))).filter(
        lambda pair: pair[0] < pair[1]
    )
    drawn = data.draw(st.lists(bounds, max_size=8))
    expected: list[Span] = []
    inside = [
        [i for i, (left, right) in enumerate(places) if left < end and right > start]
        for start, end in drawn
    ]
    assume(text.strip() and all(inside))
    for tokens in sorted(inside, key=lambda tokens: (-len(tokens), tokens)):
        span = Span(tokens[0], tokens[-1] + 1, "X")
        if not any(overlapping(span, other) for other in expected):
            expected.append(span)
    record = (1, {"text": text, "spans": [[*pair, "X"] for pair in drawn]})
    (sentence,) = tag_examples(File(Path("a.jsonl"), repair=True), [record])
    assert spans(sentence.tags) == sorted(expected)


@pytest.mark.parametrize("repair", [False, True])
def test_many_spans_in_one_line_take_linear_time(repair: bool) -> None:
    count = 30_000
    found = [[3 * i, 3 * i + 2, "X"] for i in range(count)]
    found += [
        [0, 3 * count - 1, "Y"],
        *([3 * i, 3 * count - 2, "Z"] for i in range(0, count, 100)),
    ] * repair
    record = (1, {"text": "ab " * count, "spans": found})
    begin = time.perf_counter()
    (sentence,) = tag_examples(File(Path("a.jsonl"), repair=repair), [record])
    assert time.perf_counter() - begin < 5
    assert sentence.tags == (["B-Y"] + ["I-Y"] * (count - 1) if repair else ["B-X"] * count)


def parquet(path: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[Any]]) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", path / "cache")
    tags = datasets.ClassLabel(names=["O", "B-ORG"])
    features = {
        "tokens": datasets.Sequence(datasets.Value("string")),
        "ner_tags": datasets.Sequence(tags),
    }
    data = datasets.Dataset.from_dict(rows, datasets.Features(features))
    data.to_parquet(path / "train.parquet")
    return path / "train.parquet"


def test_parquet_takes_the_names_of_its_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    rows = {"tokens": [["EU", "is"], ["Hi"]], "ner_tags": [[1, 0], [0]]}
    reading = read(parquet(tmp_path, monkeypatch, rows))
    assert [(s.tokens, s.tags, s.line) for s in reading.sentences] == [
        (["EU", "is"], ["B-ORG", "O"], 1),
        (["Hi"], ["O"], 2),
    ]


@pytest.mark.parametrize("tags", [[[0], [0, 0]], [[0], []], [[0], [-1]]])
def test_a_row_without_tags_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: list[list[int]], read: Read
) -> None:
    path = parquet(tmp_path, monkeypatch, {"tokens": [["a"], ["b"]], "ner_tags": tags})
    with pytest.raises(CorpusError, match=r"train\.parquet:2: (1 tokens but 2|no list of strings)"):
        read(path)


def test_a_hub_data_set_is_read_by_split(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data(dict[str, Any]):
        features = dict.fromkeys(["tokens", "tags", "pos"], SimpleNamespace(dtype="string"))

    data = Data(tokens=[["a"]], tags=[["O"]], pos=[["DET"]])
    hub = SimpleNamespace(load_dataset=lambda name: {"train": data, "dev": data, "extra": data})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    splits = load_splits("user/corpus")
    assert list(splits) == ["train", "validation"]
    for column, tag in ((None, "O"), ("pos", "DET")):
        file = File(Path("user/corpus"), label_column=column, rows=splits["train"])
        (sentence,) = read_file(file)
        assert (sentence.tokens, sentence.tags) == (["a"], [tag])


def test_a_failing_hub_and_a_missing_install_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ConnectionError("no network\nlong story")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    with pytest.raises(
        CorpusError, match=r"^user/corpus: datasets cannot load it \(no network\); check[^\n]*$"
    ):
        load_splits("user/corpus")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"^user/corpus: .*; pip install datasets$"):
        load_splits("user/corpus")


def test_a_parquet_file_whose_strings_are_none_is_refused(tmp_path: Path, read: Read) -> None:
    import pyarrow
    from pyarrow import parquet

    bad = pyarrow.array([b"Anna", b"\xe4"], pyarrow.binary()).view(pyarrow.string())
    tags = pyarrow.array([["O", "O"]])
    table = pyarrow.table({"tokens": pyarrow.ListArray.from_arrays([0, 2], bad), "tags": tags})
    parquet.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(CorpusError, match=r"bad\.parquet: datasets cannot load it .*utf-8"):
        read(tmp_path / "bad.parquet")
