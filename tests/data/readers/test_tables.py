"""Tables of texts and labels: what is read, and every malformed file with its line."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residense.data.readers import read as read_file
from residense.data.readers.file import CorpusError, File

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., SimpleNamespace]
KIND = "texts"


def jsonl(*records: object) -> str:
    return "\n\n".join(json.dumps(record) for record in records)


def test_quotes_are_part_of_the_text_in_tsv_unless_they_enclose_a_cell(
    write: Write, read: Read
) -> None:
    rows = '"Hi there\tpos\nnot "so" good\tneg\nit is good"\tpos\n"all ""of"" it"\tpos\n'
    texts = read(write("a.tsv", rows), label=1)
    assert texts.texts == ['"Hi there', 'not "so" good', 'it is good"', 'all "of" it']


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a b,pos\n"a c,neg\na d,pos\n', 3),
        ('a b,pos\n"a c" d,neg\n', 3),
        ('a b,pos\n"a\nb",neg\nc,neg\n"a c,neg\na d,pos\n"a e",neg\n', 6),
        ('a b,pos\n"a c,neg\na d",pos\na e,neg\n', 3),
    ],
)
def test_a_quote_that_is_not_closed_is_an_error_in_csv(
    write: Write, rows: str, line: int, read: Read
) -> None:
    with pytest.raises(CorpusError, match=rf"a\.csv:{line}: quotes "):
        read(write("a.csv", "text,label\n" + rows))


def test_the_notes_say_what_was_inferred(write: Write, read: Read) -> None:
    path = write("train.csv", "\ufefftext,category\r\na b,x\r\n\r\n a c ,x\r\na d, y ")
    texts = read(path)
    assert (texts.texts, texts.labels) == (["a b", " a c ", "a d"], [("x",), ("x",), ("y",)])
    assert texts.lines == [2, 4, 5]
    assert texts.notes == (
        "train.csv: comma-separated, text in column text, label in column category "
        "(of text, category)"
    )


BODY = [("it was rather a good film", "7"), ("it was a bad one", "8"), ("we saw it", "7")] * 9


@pytest.mark.parametrize(
    ("head", "columns", "header"),
    [
        ("sentence\tlabel", (None, None), True),
        (" Sentence \tLABEL", (None, None), True),
        ("text\tclass", (0, 1), True),
        ("x\tsentiment", ("x", None), True),
        ("Bericht\tNote", ("Bericht", "Note"), True),
        ("good film\t7", (0, 1), False),
        ("text\t7", (0, None), False),
        ("what a film !\tlabel", (None, 1), False),
    ],
)
def test_a_header_names_text_and_label_or_the_chosen_columns(
    write: Write, head: str, columns: tuple[Any, Any], header: bool, read: Read
) -> None:
    rows = "\n".join("\t".join(row) for row in BODY)
    assert len(read(write("a.tsv", f"{head}\n{rows}\n"), *columns).texts) == 27 + (not header)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("label_first", [False, True])
def test_the_separator_is_that_of_the_first_line(
    write: Write, separator: str, suffix: str, label_first: bool, read: Read
) -> None:
    rows = [(label, text) if label_first else (text, label) for text, label in BODY]
    path = write(f"a.{suffix}", "\n".join(map(separator.join, rows)))
    texts = read(path, label=int(not label_first))
    assert list(zip(texts.texts, texts.labels, strict=True)) == [
        (text, (label,)) for text, label in BODY
    ]


def test_columns_may_be_chosen(write: Write, read: Read) -> None:
    path = write("a.csv", "a,b,c\nx y,z w,1\n")
    for text, label in [("b", "c"), (1, 2), (-2, -1), ("b", -1)]:
        texts = read(path, text, label)
        assert (texts.texts[-1], texts.labels[-1]) == ("z w", ("1",))
    for text, label in [("d", 0), (3, 0), (0, 0), (-4, 1)]:
        with pytest.raises(
            CorpusError, match=r"a\.csv:\d: not exactly one .*`--data\.text_column`"
        ):
            read(path, text, label)
    with pytest.raises(
        CorpusError, match=r"b\.csv:2: not exactly one .*, read .'a 0', 'a 1', 'c'."
    ):
        read(write("b.csv", "a,a,c\nx,y,z\n"), "a", "c")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", ": no examples in this file"),
        ("a.csv", "text,label\n", ": no examples in this file"),
        ("a.txt", "\n\n", ": no examples in this file"),
        ("a.jsonl", "", ": no examples in this file"),
        (
            "a.csv",
            "text,label\na b,x\na c\n",
            r":3: 1 instead of 2 cells \(comma-separated\), read \['a c'\]",
        ),
        ("a.tsv", "text\tlabel\na b\tx\na\tb\tx\n", r":3: 3 instead of 2 cells"),
        ("a.csv", "text,label\na b,x\n , x\n", ":3: empty text"),
        ("a.tsv", "text\tlabel\na b\tx\n\tx\n", ":3: empty text"),
        ("a.csv", "text,label\na b,x\na c, \n", ":3: empty label"),
        ("a.csv", "text,label\na b,x\na\0,x\n", ":3: NUL character.*utf-16"),
        ("a.csv", "text,label\na b,x\na\rb,x\n", ":3: carriage return outside quotes"),
        ("a.csv", "a b\na c\n", r":1: not exactly one column.*read \[0\]; choose .*label_column`"),
        ("a.csv", "text,title\na b c,d e f g h i\n", ":1: not exactly one column"),
        ("a.txt", "0 a b\n1 c d\n0\n", ":3: 1 instead of 2 cells"),
        ("a.tsv", "a b\tx\nc d\ty\n", r":1: not exactly one column .* read \[0, 1\]"),
        ("a.csv.gz", "a,b\n", ": cannot be read .*gzip"),
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
            ":3: text that is not a string",
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
            r":1: not exactly one column .* read \['text', 'label', 'intent'\]; choose",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a b", "content": "c d", "label": "x"}),
            r":1: not exactly one column .*`--data\.text_column` and `--data\.label_column`",
        ),
        ("a.jsonl", jsonl({}), ":1: not exactly one column"),
    ],
)
def test_malformed_files_are_reported_with_their_line(
    write: Write, name: str, content: str, message: str, read: Read
) -> None:
    path = write(name, content)
    with pytest.raises(CorpusError, match=rf"^[^\n]*{name.replace('.', '[.]')}{message}[^\n]*$"):
        read(path)


@pytest.mark.parametrize(
    ("content", "repairs"),
    [
        ("a c\n", "rows with another number of cells dropped"),
        (",x\n", "empty text dropped"),
        ("a c,\n", "empty label dropped"),
    ],
)
def test_bad_rows_are_dropped_and_counted(
    write: Write, content: str, repairs: str, read: Read
) -> None:
    path = write("a.csv", "text,label\na b,x\n" + content)
    with pytest.raises(CorpusError, match=r"a\.csv:3: .*`--data\.repair true`"):
        read(path)
    texts = read(path, repair=True)
    assert (texts.texts, texts.repairs) == (["a b"], {repairs: 1})


def test_bytes_that_cannot_be_decoded_are_replaced_and_counted(write: Write, read: Read) -> None:
    texts = read(write("a.tsv", b"text\tlabel\na \xe9 b\tx\n"), repair=True)
    assert (texts.texts, texts.repairs) == (["a \ufffd b"], {"undecodable bytes read as U+FFFD": 1})


def test_a_text_may_be_longer_than_the_limit_of_csv(write: Write, read: Read) -> None:
    assert len(read(write("a.csv", f'text,label\n"{"a " * 200_000}",x\n')).texts[0]) == 400_000


def test_several_labels_need_a_separator(write: Write, read: Read) -> None:
    path = write("a.csv", "text,label\na b,x # y\na c,\na d,y#y\n")
    assert read(path, label_separator="#").labels == [("x", "y"), (), ("y",)]
    with pytest.raises(CorpusError, match=r"a\.csv:3: empty label"):
        read(path)
    with pytest.raises(CorpusError, match=r"a\.csv:2: empty label"):
        read(write("a.csv", "text,label\na b,x##y\n"), label_separator="#")
    records = jsonl({"text": "a b", "labels": ["x", 1]}, {"text": "a c", "labels": []})
    assert read(write("a.jsonl", records), label_separator="#").labels == [("x", "1"), ()]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text\na b\nc\n", ["a b", "c"]),
        ("a.csv", "good\nbad\n", ["good", "bad"]),
        ("a.csv", "label,text\nx,a b\ny,c\n", ["a b", "c"]),
        ("a.jsonl", jsonl({"text": "a"}, {"text": "b", "label": 1}), ["a", "b"]),
    ],
)
def test_unlabelled_files_need_no_labels(
    write: Write, name: str, content: str, expected: list[str], read: Read
) -> None:
    texts = read(write(name, content), labeled=False)
    assert texts.texts == expected
    assert texts.labels == [()] * len(expected)


def test_a_label_on_each_line_may_be_left_out(write: Write, read: Read) -> None:
    texts = read(write("a.txt", "1 one\n2 two\n"), label=0, labeled=False)
    assert (texts.texts, texts.labels) == (["one", "two"], [(), ()])


def test_columns_have_the_same_names_in_all_splits(write: Write, read: Read) -> None:
    assert read(write("train.csv", "text,label\na b,x\n")).labels == [("x",)]
    test = read(write("test.csv", "label,id,text\nx,1,a b\ny,2,c d\n"))
    assert (test.texts, test.labels) == (["a b", "c d"], [("x",), ("y",)])


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
    assert [(e.text, e.labels) for e in read_file(File(path, "texts"))] == [
        (text, (label,)) for text, label in rows
    ]


@settings(max_examples=200)
@given(
    data=st.binary() | st.text('",;\t\r\n\\ a0{}[]:\0é').map(str.encode),
    suffix=st.sampled_from(["csv", "tsv", "txt", "label", "jsonl", "csv.gz"]),
    repair=st.booleans(),
    labeled=st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
    suffix: str,
    repair: bool,
    labeled: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") and data else data)
    try:
        examples = read_file(File(path, "texts", repair=repair, labeled=labeled))
    except CorpusError:
        return
    assert examples and all(str(example.text).strip() for example in examples)
    assert {len(example.labels) for example in examples} == {int(labeled)}
