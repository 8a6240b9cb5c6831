"""Reading texts and their labels: the shared corpora to the last row, and every malformed file with its line."""

import csv
import gzip
import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residense.data.classification import ClassificationDataModule
from residense.data.sentences import CorpusError
from residense.data.texts import (
    Texts,
    find_texts,
    read_class_folder,
    read_splits,
    read_text_dataset,
    read_texts,
)
from residense.data.texts_layout import Rules

SHARED = Path(__file__).parents[3] / "shared" / "data"
ODDITIES = SHARED / "format-oddities"
needs_corpora = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the corpora in ../shared/data"
)

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def jsonl(*records: object) -> str:
    return "\n\n".join(json.dumps(record) for record in records)


def labels_of(texts: Texts) -> set[str]:
    return {label for labels in texts.labels for label in labels}


@needs_corpora
@pytest.mark.parametrize(
    ("corpus", "pattern", "options", "expected", "labels"),
    [
        ("trec", "*.tsv", {"label_column": 0}, [5452, None, 500], 6),
        ("trec", "*.tsv", {"label_column": 1}, [5452, None, 500], 50),
        ("trec", "*.label", {"encoding": "latin-1"}, [5452, None, 500], 50),
        ("sst2", None, {}, [6920, 872, 1821], 2),
        ("sst2-glue", None, {}, [67349, 872, None], 2),
        ("sst5", None, {}, [8544, 1101, 2210], 5),
        ("banking77", None, {}, [10003, None, 3080], 77),
        ("ag-news", "*.tsv.gz", {}, [10001, None, 7600], 4),
        ("ag-news", "*.csv.gz", {"text_column": -1, "label_column": 0}, [None, None, 7600], 4),
        ("chnsenticorp-htl", None, {"repair": True}, [7765, None, None], 2),
        ("atis", None, {"label_separator": "#"}, [4478, 500, 893], 18),
        ("snips", None, {}, [13084, 700, 700], 7),
    ],
)
def test_a_corpus_has_the_rows_of_its_readme(
    corpus: str, pattern: str | None, options: Any, expected: list[int | None], labels: int
) -> None:
    found = {
        split: read_texts(path, **options)
        for split, path in find_texts(SHARED / corpus, pattern).items()
    }
    assert [
        len(found[s].texts) if s in found else None for s in ("train", "validation", "test")
    ] == expected
    assert len(set().union(*map(labels_of, found.values()))) == labels
    for texts in found.values():
        assert len(texts.texts) == len(texts.labels) == len(texts.lines)
        assert texts.notes[0].startswith(f"{texts.path.name}: ")


@needs_corpora
@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (
            "trec",
            r"train: train\.label, train\.tsv; select with `--data\.files` \(such as \*\.label or \*\.tsv\)",
        ),
        (
            "ag-news",
            r"test: test\.official\.csv\.gz, test\.tsv\.gz; .* \*\.official\.csv\.gz or \*\.tsv\.gz\)",
        ),
    ],
)
def test_twins_are_ambiguous_without_a_pattern(corpus: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        find_texts(SHARED / corpus)


@needs_corpora
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "trec/train.tsv",
            {},
            r"tsv:1: columns 0, 1 of 3 may all be labels, .*label_column 0` .*text_column 2`",
        ),
        ("trec/train.tsv", {"text_column": 2}, "columns 0, 1 of 3 may all be labels"),
        (
            "ag-news/test.official.csv.gz",
            {},
            r"columns 1, 2 of 3 may all be texts, .*`--data\.text_column 1`",
        ),
        ("ag-news/test.official.csv.gz", {"label_column": 0}, "columns 1, 2 of 3 may all be texts"),
        ("trec/train.label", {}, r"label:66: byte 0xf0 is not utf-8, .*`--data\.encoding latin-1`"),
        ("chnsenticorp-htl/all.csv.gz", {}, r"gz:6376: empty text, .*`--data\.repair true`"),
        ("wnut17/dev.conll", {}, "suffix of no known format"),
    ],
)
def test_what_a_corpus_leaves_open_is_an_error_that_helps(
    name: str, options: Any, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        read_texts(SHARED / name, **options)


@needs_corpora
def test_odd_quotes_are_read_as_they_are_meant() -> None:
    texts = read_texts(ODDITIES / "ag-news.doubled-quotes-backslash.csv", text_column=2).texts
    assert len(texts) == 8
    assert texts[1].startswith('\\\\"Sven Jaschan')
    tsv = read_texts(ODDITIES / "ag-news.leading-quote.tsv")
    assert [labels for (labels,) in tsv.labels] == ["Business", "World", "Sci/Tech", "Business"]
    assert '<A HREF="http'.replace("<", "&lt;") in tsv.texts[0]
    cells = read_texts(ODDITIES / "banking77.crlf-multiline-quoted.csv")
    assert cells.texts[0] == "\nI can't seem to be able to use my card\n\n\n"
    assert cells.lines[:3] == [2, 7, 9]
    latin = read_texts(ODDITIES / "trec.latin1.label", encoding="latin-1")
    assert "sister\xf0city" in latin.texts[5]


def test_a_quote_that_is_not_closed_swallows_no_line_of_tsv(write: Write) -> None:
    texts = read_texts(write("a.tsv", '"Hi there\tpos\nnot "so" good\tneg\nit is good"\tpos\n'))
    assert texts.texts == ['"Hi there', 'not "so" good', 'it is good"']
    assert "quotes are part of the text" in texts.notes[0]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a b,pos\n"a c,neg\na d,pos\n', 3),
        ('a b,pos\n"a c" d,neg\n', 3),
        ('a b,pos\n"a\nb",neg\nc,neg\n"a c,neg\na d,pos\n"a e",neg\n', 6),
        ('a b,pos\n"a c,neg\na d",pos\na e,neg\n', 3),
    ],
)
def test_a_quote_that_is_not_closed_is_an_error_in_csv(write: Write, rows: str, line: int) -> None:
    with pytest.raises(CorpusError, match=rf"a\.csv:{line}: quotes "):
        read_texts(write("a.csv", "text,label\n" + rows))


def test_the_notes_say_what_was_inferred(write: Write) -> None:
    path = write("train.csv", "\ufefftext,category\r\na b,x\r\n\r\n a c ,x\r\na d, y ")
    read = read_texts(path)
    assert read == Texts(
        path,
        ["a b", " a c ", "a d"],
        [("x",), ("x",), ("y",)],
        [2, 4, 5],
        [
            "train.csv: comma-separated, header text, category, text in column 0 (text), label in column 1 (category) "
            "(of 2), 3 texts, 2 labels: x, y"
        ],
        {},
        Rules("csv", ",", None, True, 2, "text", "category"),
    )


BODY = [("it was rather a good film", "7"), ("it was a bad one", "8"), ("we saw it", "7")] * 9


@pytest.mark.parametrize(
    ("head", "header"),
    [
        ("sentence\tlabel", True),
        ("label\ttext", True),
        ("review_text\tsentiment", True),
        ("x\tsentiment", True),
        ("Bericht\tNote", True),
        ("good film\t7", False),
        ("what a film !\tlabel", False),
        ("text\t7", False),
    ],
)
def test_a_header_is_told_from_a_row(write: Write, head: str, header: bool) -> None:
    rows = "\n".join("\t".join(row) for row in BODY)
    assert len(read_texts(write("a.tsv", f"{head}\n{rows}\n")).texts) == 27 + (not header)


def test_a_header_of_unusual_names_is_told_from_words_by_the_labels(write: Write) -> None:
    rows = "\n".join(f"{text}\tgrade{label}" for text, label in BODY)
    assert len(read_texts(write("a.tsv", f"Bericht\tNote\n{rows}\n")).texts) == 27
    assert len(read_texts(write("a.tsv", f"Bericht\tgrade8\n{rows}\n")).texts) == 28
    assert len(read_texts(write("a.tsv", f"Ein Bericht\tNote\n{rows}\n")).texts) == 28


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("label_first", [False, True])
def test_separator_and_order_follow_from_the_content(
    write: Write, separator: str, suffix: str, label_first: bool
) -> None:
    rows = [(label, text) if label_first else (text, label) for text, label in BODY]
    texts = read_texts(write(f"a.{suffix}", "\n".join(map(separator.join, rows))))
    assert list(zip(texts.texts, texts.labels, strict=True)) == [
        (text, (label,)) for text, label in BODY
    ]


def test_columns_may_be_chosen(write: Write) -> None:
    path = write("a.csv", "a,b,c\nx y,z w,1\n")
    for text, label in [("b", "c"), (1, 2), (-2, -1), ("b", -1)]:
        texts = read_texts(path, text, label)
        assert (texts.texts[-1], texts.labels[-1]) == ("z w", ("1",))
    for text, label, message in [
        ("d", 0, "no column 'd' in the header"),
        (3, 0, "no column 3 among 3"),
    ]:
        with pytest.raises(CorpusError, match=rf"a\.csv:\d: {message}.*`--data\.text_column`"):
            read_texts(path, text, label)
    with pytest.raises(CorpusError, match="column 0 cannot be both text and label"):
        read_texts(path, 0, 0)
    with pytest.raises(CorpusError, match="2 columns 'a' in the header"):
        read_texts(write("b.csv", "a,a,c\nx,y,z\n"), "a", "c")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", ": no text in this file"),
        ("a.csv", "text,label\n", ": no text in this file"),
        ("a.txt", "\n\n", ": no text in this file"),
        ("a.jsonl", "", ": no text in this file"),
        (
            "a.csv",
            "text,label\na b,x\na c\n",
            r":3: expected 2 cells \(comma-separated\), found 1, read \['a c'\]",
        ),
        ("a.tsv", "text\tlabel\na b\tx\na\tb\tx\n", r":3: expected 2 cells .* found 3"),
        ("a.csv", "text,label\na b,x\n , x\n", ":3: empty text"),
        ("a.tsv", "text\tlabel\na b\tx\n\t\n", ":3: empty text"),
        ("a.csv", "text,label\na b,x\na c, \n", ":3: empty label"),
        ("a.csv", "text,label\na b,x\na\0,x\n", ":3: NUL character.*utf-16"),
        ("a.csv", "text,label\na b,x\na\rb,x\n", ":3: carriage return outside quotes"),
        ("a.csv", "a b\na c\n", ":1: one column only, no label"),
        (
            "a.csv",
            "good,poor\nfine,evil\n",
            r":1: columns 0, 1 of 2 may all be labels, or texts.*label_column 0`",
        ),
        ("a.csv", "a b c d e f,a b c d e f\n" * 30, ":1: columns 0, 1 of 2 may all be"),
        (
            "a.csv",
            "a b c d e f,a b c d\n" * 30,
            ":1: columns 0, 1 of 2|none of 2 columns looks like labels",
        ),
        ("a.csv", "text,title\na b c,d e f g h i\n", ":2: none of 2 columns looks like labels"),
        (
            "a.txt",
            "".join(f"word{i} and more\n" for i in range(30)),
            ":1: first words that are no labels, 30 in 30",
        ),
        ("a.txt", "0 a b\n1 c d\n0\n", ":3: expected 2 cells"),
        (
            "a.txt",
            "".join(f"word{i}\tO\n" + "\n" * (i % 9 == 8) for i in range(30)),
            ":1: words and blank lines instead of texts",
        ),
        ("a.csv.gz", "a,b\n", ": corrupt or truncated gzip"),
        ("a.jsonl", '\n{"text": "a"', ":2: not JSON"),
        ("a.jsonl", "\n" + "[" * 100_000, ":2: not JSON"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n[1]', ":2: no object"),
        (
            "a.jsonl",
            jsonl({"text": "a b", "label": "x"}, {"label": "x"}, {"text": "b", "label": "x"}),
            ":3: empty text",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a b", "label": "x"}, {"text": 3, "label": "x"}),
            ":3: text that is no string",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a b", "label": "x"}, {"text": "c", "label": " "}),
            ":3: empty label",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a b", "label": True}),
            ":1: label that is neither string nor number, read True",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a b", "label": ["x"]}),
            r":1: list of labels.*`--data\.label_separator`",
        ),
        ("a.jsonl", jsonl({"text": "a b", "label": "\ud800"}), ":1: half a surrogate pair"),
        (
            "a.jsonl",
            jsonl({"text": "a b", "label": "x", "intent": "y"}),
            r":1: columns 1 \(label\), 2 \(intent\) of 3",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a b", "content": "c d", "label": "x"}),
            r":1: columns 0 \(text\), 1 \(content\) of 3 .* texts",
        ),
        ("a.jsonl", jsonl({}), ":1: none of 0 columns looks like labels"),
    ],
)
def test_malformed_files_are_reported_with_their_line(
    write: Write, name: str, content: str, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(CorpusError, match=rf"^[^\n]*{name.replace('.', '[.]')}{message}[^\n]*$"):
        read_texts(path)


@pytest.mark.parametrize(
    ("content", "repairs"),
    [
        ("a c\n", "rows with another number of cells dropped"),
        (",x\n", "rows with an empty text dropped"),
        ("a c,\n", "rows with an empty label dropped"),
        ('"a c,x\na d",x\n', "texts of several rows within quotes dropped"),
    ],
)
def test_bad_rows_are_dropped_and_counted(write: Write, content: str, repairs: str) -> None:
    path = write("a.csv", "text,label\na b,x\n" + content)
    with pytest.raises(CorpusError, match=r"a\.csv:3: .*`--data\.repair true`"):
        read_texts(path)
    texts = read_texts(path, repair=True)
    assert (texts.texts, texts.repairs) == (["a b"], {repairs: 1})


def test_bytes_that_cannot_be_decoded_are_replaced_and_counted(write: Write) -> None:
    texts = read_texts(write("a.tsv", b"text\tlabel\na \xe9 b\tx\n"), repair=True)
    assert (texts.texts, texts.repairs) == (["a \ufffd b"], {"undecodable bytes read as U+FFFD": 1})


def test_a_text_may_be_longer_than_the_limit_of_csv(write: Write) -> None:
    assert (
        len(read_texts(write("a.csv", f'text,label\n"{"a " * 200_000}",x\n')).texts[0]) == 400_000
    )


def test_several_labels_need_a_separator(write: Write) -> None:
    path = write("a.csv", "text,label\na b,x # y\na c,\na d,y#y\n")
    assert read_texts(path, label_separator="#").labels == [("x", "y"), (), ("y",)]
    with pytest.raises(CorpusError, match=r"a\.csv:3: empty label"):
        read_texts(path)
    with pytest.raises(CorpusError, match=r"a\.csv:2: empty label"):
        read_texts(write("a.csv", "text,label\na b,x##y\n"), label_separator="#")
    records = jsonl({"text": "a b", "labels": ["x", 1]}, {"text": "a c", "labels": []})
    assert read_texts(write("a.jsonl", records), label_separator="#").labels == [("x", "1"), ()]


@pytest.mark.parametrize("text", ["text", "sentence", "content", "review"])
@pytest.mark.parametrize("label", ["label", "category", "class", "intent"])
def test_json_lines_are_read_by_their_keys(write: Write, text: str, label: str) -> None:
    records = jsonl(
        {"id": 1, label: 0, text: "a b"},
        {"id": 2, label: 1.50, text: "c\nd"},
        {label: "x", text: "e"},
    )
    texts = read_texts(write("a.jsonl.gz", gzip.compress(records.encode())))
    assert (texts.texts, texts.labels) == (["a b", "c\nd", "e"], [("0",), ("1.5",), ("x",)])
    assert texts.lines == [1, 3, 5]


def test_numbers_of_json_lines_stay_as_written(write: Write) -> None:
    path = write(
        "a.jsonl", '{"text": "a", "label": 1.50}\n{"text": "b", "label": 007}'.replace("007", "1e3")
    )
    assert read_texts(path).labels == [("1.50",), ("1e3",)]


def test_keys_may_be_chosen(write: Write) -> None:
    path = write("a.jsonl", jsonl({"headline": "a b", "text": "c d", "label": 0, "intent": "y"}))
    texts = read_texts(path, "headline", "intent")
    assert (texts.texts, texts.labels) == (["a b"], [("y",)])
    with pytest.raises(
        CorpusError, match=r"no column 'gone' in the header, read \['headline', 'text'"
    ):
        read_texts(path, "gone")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "1 one\ntwo , three\n\nfour\n", ["1 one", "two , three", "four"]),
        ("a.csv", "text\na b\nc\n", ["a b", "c"]),
        ("a.csv", "good\nbad\n", ["good", "bad"]),
        ("a.tsv", "x\ta b c\nx\td e f\n", ["a b c", "d e f"]),
        ("a.csv", "label,text\nx,a b\ny,c\n", ["a b", "c"]),
        ("a.jsonl", jsonl({"text": "a"}, {"text": "b", "label": 1}), ["a", "b"]),
    ],
)
def test_unlabelled_files_need_no_labels(
    write: Write, name: str, content: str, expected: list[str]
) -> None:
    texts = read_texts(write(name, content), labelled=False)
    assert texts.texts == expected
    assert texts.labels == [()] * len(expected)
    assert "labels not read" in texts.notes[0]


def test_a_label_on_each_line_may_be_left_out(write: Write) -> None:
    texts = read_texts(write("a.txt", "1 one\n2 two\n"), label_column=0, labelled=False)
    assert (texts.texts, texts.labels) == (["one", "two"], [(), ()])


def test_a_size_behind_train_counts_where_no_file_is_called_train(write: Write) -> None:
    path = write("train10k.tsv", "")
    write("test2.tsv", "")
    assert find_texts(path.parent) == {"train": path}
    plain = write("train.tsv", "")
    assert find_texts(path.parent) == {"train": plain}


def test_files_of_other_formats_do_not_count(write: Write) -> None:
    path = write("train.intent.tsv", "")
    write("train.slots.conll", "")
    write("train.bio", "")
    assert find_texts(path.parent) == {"train": path}
    assert find_texts(path) == {"train": path}
    assert find_texts(path.parent, "*.bio") == {"train": path.parent / "train.bio"}
    with pytest.raises(CorpusError, match="no such file or folder"):
        find_texts(path.parent / "gone")


def test_class_folders_are_read_in_order(write: Write, tmp_path: Path) -> None:
    for name in ("neg/b", "neg/a", "neg/.hidden", ".git/x", "pos/a", "unsup/a"):
        write(f"corpus/{name}.txt", f"text\n of {name}\r\n")
    write("corpus/neg/urls.csv", "")
    path = tmp_path / "corpus"
    assert find_texts(path) == {"train": path}
    texts = read_class_folder(path)
    assert texts.texts == ["text\n of neg/a", "text\n of neg/b", "text\n of pos/a"]
    assert (texts.labels, texts.lines) == ([("neg",), ("neg",), ("pos",)], [1, 2, 3])
    assert texts.notes == ["corpus: a class in each of 2 folders, 3 texts, 2 labels: neg, pos"]
    assert read_texts(path) == texts
    assert read_texts(path, labelled=False).labels == [()] * 3
    with pytest.raises(CorpusError, match="no class folder"):
        read_texts(path / "neg")


def test_folders_of_class_folders_are_splits(write: Write, tmp_path: Path) -> None:
    for name in ("train/neg/a", "train/pos/a", "test/neg/a", "train/urls", "vocab"):
        write(f"{name}.txt", "text")
    assert find_texts(tmp_path) == {"train": tmp_path / "train", "test": tmp_path / "test"}
    assert find_texts(tmp_path / "train") == {"train": tmp_path / "train"}
    write("test.csv", "")
    with pytest.raises(
        CorpusError, match=r"class folders as well as files .*: test\.csv; select .*`--data\.files`"
    ):
        find_texts(tmp_path)
    assert find_texts(tmp_path, "*.csv") == {"test": tmp_path / "test.csv"}


def test_faults_in_class_folders_name_the_file(write: Write, tmp_path: Path) -> None:
    write("pos/a.txt", "fine")
    write("neg/a.txt", b"not \xff utf-8")
    empty = write("neg/b.txt", " \n")
    with pytest.raises(CorpusError, match=r"neg/a\.txt:1: byte 0xff is not utf-8"):
        read_class_folder(tmp_path)
    texts = read_class_folder(tmp_path, repair=True)
    assert (texts.texts, texts.labels) == (["not \ufffd utf-8", "fine"], [("neg",), ("pos",)])
    assert texts.repairs == {
        "undecodable bytes read as U+FFFD": 1,
        "rows with an empty text dropped": 1,
    }
    with pytest.raises(CorpusError, match=rf"{empty.name}:1: empty text"):
        read_class_folder(tmp_path, encoding="latin-1")


def read_corpus(folder: Path) -> dict[str, Texts]:
    return read_splits(folder, None, None, None, "utf-8", False, None)


QUOTED = '"so it goes"\tx\n"on and on"\ty\n'  # well-formed, and text as well


@pytest.mark.parametrize(
    ("train", "texts"), [('a "b\tx\n"c d\ty\n', '"so it goes"'), (QUOTED, "so it goes")]
)
@pytest.mark.parametrize("kind", ["tsv", "txt"])
def test_quotes_mean_the_same_in_all_splits(
    write: Write, train: str, texts: str, kind: str
) -> None:
    folder = write(f"train.{kind}", train * 3).parent
    write(f"test.{kind}", QUOTED)
    write(f"dev.{kind}", "no quotes\tx\nat all\ty\n")
    read = read_corpus(folder)
    assert read["validation"].texts == ["no quotes", "at all"]
    assert read["test"].texts[0] == texts


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "text\tlabel\na b\tx\nc d\ty\n",
            "a b\tx\nc d\ty\n",
            r"test\.tsv:1: no column 'text' in the header",
        ),
        (
            "a b\tx\nc d\ty\n",
            "text\tlabel\na b\tx\n",
            r"test\.tsv:1: a header, which another split lacks",
        ),
        ("a b\tx\nc d\ty\n", "1\ta b\tx\n2\tc d\ty\n", r"test\.tsv:1: expected 2 cells .* found 3"),
        (
            '"a b"\tx\n"c, d"\ty\n',
            '"a b"\tx\n"c d\ty\n',
            r"test\.tsv:2: quotes that are not closed",
        ),
        ("a b\tx\nc d\ty\n", "a b,x\nc d,y\n", r"test\.tsv:1: expected 2 cells"),
    ],
)
def test_a_split_that_does_not_fit_the_first_is_refused(
    write: Write, train: str, test: str, message: str
) -> None:
    folder = write("train.tsv", train).parent
    write("test.tsv", test)
    with pytest.raises(CorpusError, match=message):
        read_corpus(folder)


def test_columns_are_those_of_the_first_split_by_name(write: Write) -> None:
    folder = write("train.csv", "text,label\na b,x\nc d e f,y\n").parent
    write("test.csv", "label,id,text\nx,1,a b\ny,2,c d\n")
    read = read_corpus(folder)["test"]
    assert (read.texts, read.labels) == (["a b", "c d"], [("x",), ("y",)])


def test_labels_that_hardly_repeat_are_refused_before_anything_is_made_of_them(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (f"some text number {i},{i % 8000}\n" for i in range(16_000))
    folder = write("train.csv", "text,identifier\n" + "".join(rows)).parent
    monkeypatch.setattr("residense.data.corpus.class_targets", pytest.fail)
    data = ClassificationDataModule(str(folder), label_column="identifier")
    with pytest.raises(CorpusError) as error:
        data.load()
    expected = (
        "8,000 different labels in column identifier for 16,000 texts, too many to be classes"
    )
    assert (
        str(error.value)
        == f"{folder}/train.csv: {expected}; choose another column with `--data.label_column`"
    )


def test_parquet_takes_the_names_of_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kind = datasets.ClassLabel(names=["neg", "pos"])
    features = {"idx": datasets.Value("int32"), "sentence": datasets.Value("string"), "label": kind}
    rows = {"idx": [0, 1, 2], "sentence": ["a b", "c", "d"], "label": [1, 0, -1]}
    data = datasets.Dataset.from_dict(rows, datasets.Features(features))
    path = tmp_path / "train.parquet"
    data.select([0, 1]).to_parquet(path)
    texts = read_texts(path)
    assert (texts.texts, texts.labels, texts.lines) == (["a b", "c"], [("pos",), ("neg",)], [1, 2])
    assert (
        "data set, text in column 1 (sentence), label in column 2 (label) (of 3)" in texts.notes[0]
    )
    assert read_text_dataset(str(path), label_column="idx")["train"].labels == [("0",), ("1",)]
    data.to_parquet(path)
    with pytest.raises(CorpusError, match=r"train\.parquet:3: empty label"):
        read_text_dataset(str(path))
    assert len(read_texts(path, labelled=False).texts) == 3


def test_a_hub_data_set_is_read_by_split(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data(dict[str, Any]):
        features = {  # noqa: RUF012
            "text": SimpleNamespace(dtype="string"),
            "labels": SimpleNamespace(feature=SimpleNamespace(dtype="int64", names=["x", "y"])),
            "image": SimpleNamespace(dtype="dict"),
        }

    data = Data(text=["a", "b"], labels=[[0, 1], []], image=[{}, {}])
    hub = SimpleNamespace(load_dataset=lambda name: {"train": data, "dev": data, "extra": data})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    splits = read_text_dataset("user/corpus", label_separator=",")
    assert list(splits) == ["train", "validation"]
    assert splits["train"].labels == [("x", "y"), ()]
    with pytest.raises(CorpusError, match="corpus:1: list of labels"):
        read_text_dataset("user/corpus")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"^user/corpus: .*; pip install datasets$"):
        read_text_dataset("user/corpus")


# What a cell may hold: U+0000 is refused, and half a surrogate pair is nothing that UTF-8 can hold.
CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from('",;\t\r\n\\ ')
)
ROWS = st.lists(
    st.tuples(CELLS.filter(str.strip), st.sampled_from(["pos", "neg", "so, so"])), min_size=1
)


@given(
    rows=ROWS,
    how=st.sampled_from(
        [("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]
    ),
)
def test_what_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, how: Any
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=how[0], quoting=how[1]).writerows([("text", "label"), *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(file.getvalue().encode())
    texts = read_texts(path)
    assert list(zip(texts.texts, texts.labels, strict=True)) == [
        (text, (label,)) for text, label in rows
    ]


@settings(max_examples=200)
@given(
    data=st.binary() | st.text('",;\t\r\n\\ a0{}[]:\0é').map(str.encode),
    suffix=st.sampled_from(["csv", "tsv", "txt", "label", "jsonl", "csv.gz"]),
    repair=st.booleans(),
    labelled=st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str, repair: bool, labelled: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") and data else data)
    try:
        texts = read_texts(path, repair=repair, labelled=labelled)
    except CorpusError:
        return
    assert len(texts.texts) == len(texts.labels) == len(texts.lines) > 0
    assert all(map(str.strip, texts.texts))
    assert Counter(map(len, texts.labels)) == {int(labelled): len(texts.texts)}
