"""Texts with labels: the shared corpora to the last row, JSON lines, class folders and data sets."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from residense.data.classification import ClassificationDataModule
from residense.data.readers import read as read_file
from residense.data.readers.file import CorpusError, File
from residense.data.readers.splits import find_splits

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., SimpleNamespace]
KIND = "texts"

SHARED = Path(__file__).parents[4] / "shared" / "data"
ODDITIES = SHARED / "format-oddities"
needs_corpora = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the corpora in ../shared/data"
)


def jsonl(*records: object) -> str:
    return "\n\n".join(json.dumps(record) for record in records)


@needs_corpora
@pytest.mark.parametrize(
    ("corpus", "pattern", "options", "expected", "labels"),
    [
        ("trec", "*.tsv", {"label": 0, "text": 2}, [5452, None, 500], 6),
        ("trec", "*.tsv", {"label": 1, "text": 2}, [5452, None, 500], 50),
        ("trec", "*.label", {"encoding": "latin-1"}, [5452, None, 500], 50),
        ("sst2", None, {"label": 1}, [6920, 872, 1821], 2),
        ("sst2-glue", None, {}, [67349, 872, None], 2),
        ("sst5", None, {}, [8544, 1101, 2210], 5),
        ("banking77", None, {}, [10003, None, 3080], 77),
        ("ag-news", "*.tsv.gz", {"label": 1}, [10001, None, 7600], 4),
        ("ag-news", "*.csv.gz", {"text": -1, "label": 0}, [None, None, 7600], 4),
        ("chnsenticorp-htl", None, {"repair": True}, [7765, None, None], 2),
        ("atis", None, {"label": 0, "label_separator": "#"}, [4478, 500, 893], 18),
        ("snips", None, {"label": 0}, [13084, 700, 700], 7),
    ],
)
def test_a_corpus_has_the_rows_of_its_readme(
    corpus: str,
    pattern: str | None,
    options: Any,
    expected: list[int | None],
    labels: int,
    read: Read,
) -> None:
    found = {
        split: read(path, **options)
        for split, path in find_splits(SHARED / corpus, "texts", pattern).items()
    }
    assert [
        len(found[s].texts) if s in found else None for s in ("train", "validation", "test")
    ] == expected
    assert len({name for t in found.values() for row in t.labels for name in row}) == labels


@needs_corpora
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "trec/train.tsv",
            {},
            r"tsv:1: not exactly one column .* read \[0, 1, 2\]; .*`--data\.label_column`",
        ),
        ("trec/train.tsv", {"text": 2}, "not exactly one column"),
        ("ag-news/test.official.csv.gz", {"label": 0}, "not exactly one column"),
        ("sst2/train.tsv", {}, r"tsv:1: not exactly one column .*read \[0, 1\]; choose"),
        ("trec/train.label", {}, r"label:66: byte 0xf0 is not utf-8, .*`--data\.encoding latin-1`"),
        ("chnsenticorp-htl/all.csv.gz", {}, r"gz:6376: empty text, .*`--data\.repair true`"),
        ("wnut17/dev.conll", {}, "not exactly one column"),
    ],
)
def test_what_a_corpus_leaves_open_is_an_error_that_helps(
    name: str, options: Any, message: str, read: Read
) -> None:
    with pytest.raises(CorpusError, match=message):
        read(SHARED / name, **options)


@needs_corpora
def test_odd_quotes_are_read_as_they_are_meant(read: Read) -> None:
    texts = read(ODDITIES / "ag-news.doubled-quotes-backslash.csv", 2, 0).texts
    assert len(texts) == 8
    assert texts[1].startswith('\\\\"Sven Jaschan')
    tsv = read(ODDITIES / "ag-news.leading-quote.tsv", label=1)
    assert [labels for (labels,) in tsv.labels] == ["Business", "World", "Sci/Tech", "Business"]
    assert '<A HREF="http'.replace("<", "&lt;") in tsv.texts[0]
    cells = read(ODDITIES / "banking77.crlf-multiline-quoted.csv")
    assert cells.texts[0] == "\nI can't seem to be able to use my card\n\n\n"
    assert cells.lines[:3] == [2, 7, 9]
    latin = read(ODDITIES / "trec.latin1.label", encoding="latin-1")
    assert "sister\xf0city" in latin.texts[5]


@pytest.mark.parametrize("text", ["text", "sentence", "content", "review"])
@pytest.mark.parametrize("label", ["label", "category", "class", "intent"])
def test_json_lines_are_read_by_their_keys(write: Write, text: str, label: str, read: Read) -> None:
    records = jsonl(
        {"id": 1, label: 0, text: "a b"},
        {"id": 2, label: 1.50, text: "c\nd"},
        {label: "x", text: "e"},
    )
    texts = read(write("a.jsonl.gz", gzip.compress(records.encode())))
    assert (texts.texts, texts.labels) == (["a b", "c\nd", "e"], [("0",), ("1.5",), ("x",)])
    assert texts.lines == [1, 3, 5]


def test_keys_may_be_chosen(write: Write, read: Read) -> None:
    path = write("a.jsonl", jsonl({"headline": "a b", "text": "c d", "label": 0, "intent": "y"}))
    texts = read(path, "headline", "intent")
    assert (texts.texts, texts.labels) == (["a b"], [("y",)])
    with pytest.raises(CorpusError, match=r"not exactly one .*, read \['headline', 'text'"):
        read(path, "gone")


def test_class_folders_are_read_in_order(write: Write, tmp_path: Path, read: Read) -> None:
    for name in ("neg/b", "neg/a", "neg/.hidden", ".git/x", "pos/a", "unsup/a"):
        write(f"corpus/{name}.txt", f"text\n of {name}\r\n")
    write("corpus/neg/urls.csv", "")
    path = tmp_path / "corpus"
    assert find_splits(path, "texts") == {"train": path}
    texts = read(path)
    assert texts.texts == ["text\n of neg/a", "text\n of neg/b", "text\n of pos/a"]
    assert (texts.labels, texts.lines) == ([("neg",), ("neg",), ("pos",)], [1, 2, 3])
    assert texts.notes == "corpus: a class in each of 2 folders"
    assert read(path, labeled=False).labels == [()] * 3
    with pytest.raises(CorpusError, match="no examples in this file"):
        read(path / "neg")


def test_faults_in_class_folders_name_the_file(write: Write, tmp_path: Path, read: Read) -> None:
    write("pos/a.txt", "fine")
    write("neg/a.txt", b"not \xff utf-8")
    empty = write("neg/b.txt", " \n")
    with pytest.raises(CorpusError, match=r"neg/a\.txt:1: byte 0xff is not utf-8"):
        read(tmp_path)
    texts = read(tmp_path, repair=True)
    assert (texts.texts, texts.labels) == (["not \ufffd utf-8", "fine"], [("neg",), ("pos",)])
    assert texts.repairs == {
        "undecodable bytes read as U+FFFD": 1,
        "empty text dropped": 1,
    }
    with pytest.raises(CorpusError, match=rf"{empty.name}:1: empty text"):
        read(tmp_path, encoding="latin-1")


def test_labels_that_hardly_repeat_are_refused_before_anything_is_made_of_them(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (f"some text number {i},{i % 8000}\n" for i in range(16_000))
    folder = write("train.csv", "text,identifier\n" + "".join(rows)).parent
    monkeypatch.setattr("residense.data.corpus.class_targets", pytest.fail)
    data = ClassificationDataModule(str(folder), label_column="identifier")
    with pytest.raises(ValueError, match="8,000 different labels for 16,000 texts are too many"):
        data.load(None)


def test_parquet_takes_the_names_of_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kind = datasets.ClassLabel(names=["neg", "pos"])
    features = {"idx": datasets.Value("int32"), "sentence": datasets.Value("string"), "label": kind}
    rows = {"idx": [0, 1, 2], "sentence": ["a b", "c", "d"], "label": [1, 0, -1]}
    data = datasets.Dataset.from_dict(rows, datasets.Features(features))
    path = tmp_path / "train.parquet"
    data.select([0, 1]).to_parquet(path)
    texts = read(path)
    assert (texts.texts, texts.labels, texts.lines) == (["a b", "c"], [("pos",), ("neg",)], [1, 2])
    assert texts.notes == (
        "train.parquet: data set, text in column sentence, label in column label "
        "(of idx, sentence, label)"
    )
    assert read(path, label="idx").labels == [("0",), ("1",)]
    data.to_parquet(path)
    with pytest.raises(CorpusError, match=r"train\.parquet:3: empty label"):
        read(path)
    assert len(read(path, labeled=False).texts) == 3


def test_classes_of_a_data_set_have_their_names() -> None:
    class Data(dict[str, Any]):
        features = {  # noqa: RUF012
            "text": SimpleNamespace(dtype="string"),
            "labels": SimpleNamespace(feature=SimpleNamespace(dtype="int64", names=["x", "y"])),
            "image": SimpleNamespace(dtype="dict"),
        }

    data = Data(text=["a", "b"], labels=[[0, 1], []], image=[{}, {}])
    file = File(Path("user/corpus"), "texts", label_separator=",", rows=data)
    assert [example.labels for example in read_file(file)] == [("x", "y"), ()]
    file.label_separator = None
    with pytest.raises(CorpusError, match="corpus:1: list of labels"):
        read_file(file)
