"""Column files: every row is a token with its tag, or an error with its line."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from residense.data.readers.file import CorpusError

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., SimpleNamespace]


def test_columns_are_noted(write: Write, read: Read) -> None:
    reading = read(write("train.conll", "\ufeffJo\tB-PER\r\nran\tO\r\n\t\r\n \r\nHi\tO"))
    assert [(s.tokens, s.tags, s.line) for s in reading.sentences] == [
        (["Jo", "ran"], ["B-PER", "O"], 1),
        (["Hi"], ["O"], 5),
    ]
    assert (
        reading.notes == "train.conll: TAB-separated, tokens in column 0, tags in column 1 (of 2)"
    )


@pytest.mark.parametrize(
    "odd", ["\x85", "\u2028", "\x0b", "\x0c", "\x1c", "\r", "\xa0", "\u3000", "\u200b"]
)
@pytest.mark.parametrize("separator", ["\t", " "])
def test_only_line_feeds_end_a_line(write: Write, odd: str, separator: str, read: Read) -> None:
    text = f"a{odd}b{separator}O\n{odd}{separator}O\n"
    assert read(write("a.conll", text)).tokens == [f"a{odd}b", odd]


def test_comments_are_what_leads_a_sentence_and_has_other_columns(write: Write, read: Read) -> None:
    reading = read(write("a.conll", "# id = 1\n# x\n#\tO\na\tO\n#b\tO\n\n#c\tO\n"))
    assert reading.tokens == ["#", "a", "#b", "#c"]


def test_document_lines_end_sentences(write: Write, read: Read) -> None:
    reading = read(write("a.conll", "-DOCSTART- -X- O\na NN O\n-DOCSTART- -X- O\nb NN O\n"))
    assert [sentence.tokens for sentence in reading.sentences] == [["a"], ["b"]]


CONLL03 = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"


def test_tags_are_in_the_last_column_or_the_chosen_one(write: Write, read: Read) -> None:
    path = write("a.conll", CONLL03)
    assert read(path).tags == ["B-ORG", "O"]
    assert "tokens in column 0, tags in column 3 (of 4)" in read(path).notes
    assert read(path, label=-1).tags == ["B-ORG", "O"]
    assert read(path, label=1).tags == ["NNP", "VBZ"]
    with pytest.raises(CorpusError, match=r"no column 4, read \[0, 1, 2, 3\]"):
        read(path, label=4)


def test_a_header_names_the_columns(write: Write, read: Read) -> None:
    path = write("a.tsv", "tag\tword\nB-ORG\tEU\nO\tis\n")
    reading = read(path, text="word", label="tag")
    assert (reading.tokens, reading.tags) == (["EU", "is"], ["B-ORG", "O"])
    with pytest.raises(CorpusError, match=r"a\.tsv:1: no column 'form', read .'tag', 'word'."):
        read(path, text="form")


def test_tags_in_the_first_column_leave_the_second_for_tokens(write: Write, read: Read) -> None:
    assert read(write("a.tsv", "B-ORG\tEU\nO\tis\n"), label=0).tokens == ["EU", "is"]


def test_unlabelled_files_need_no_tags(write: Write, read: Read) -> None:
    reading = read(write("a.txt", "EU\nis\n\nHi\n"), labeled=False)
    assert [sentence[1:3] for sentence in reading.sentences] == [(["EU", "is"], []), (["Hi"], [])]
    assert read(write("b.txt", CONLL03), labeled=False).tokens == ["EU", "rejects"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a\tO\nb\tO\nc\n",
            r":3: expected 2 columns as in the first row, found 1, read 'c'; correct the line",
        ),
        (
            "a\tO\nb\tO\tx\n",
            r":2: expected 2 columns as in the first row, found 3, read 'b\\tO\\tx'",
        ),
        ("a O\nb O\nNew York B-LOC\n", r":3: expected 2 columns as in the first row, found 3"),
        ("a\tO\n\tO\n", r":2: empty token, read '\\tO'; write the token"),
        ("a\tO\nb\t\n", r":2: empty tag, read 'b\\t'; write the tag"),
        ("a\tO\nb\tB LOC\n", ":2: tag with spaces"),
        ("a\nb\n", ":1: one column only, read 'a'"),
        ("a\tb c\nb\td e\n", ":1: tag with spaces, .*dense_cls.yaml reads texts"),
        ("a b\tO\nb c\tO\n", ":1: texts instead of tokens, .*dense_cls.yaml reads texts"),
        ("", ": no examples in this file"),
        ("\n\n-DOCSTART- O\n", ": no examples in this file"),
        ("1-2" + "\t_" * 9, ": no examples in this file"),
    ],
)
def test_malformed_columns_are_reported_with_their_line(
    write: Write, text: str, message: str, read: Read
) -> None:
    path = write("a.conll", text)
    with pytest.raises(CorpusError, match=r"a\.conll" + message):
        read(path)


def test_a_header_alone_is_no_corpus(write: Write, read: Read) -> None:
    with pytest.raises(CorpusError, match=r"a\.tsv: no examples in this file"):
        read(write("a.tsv", "word\ttag\n"), text="word")


@pytest.mark.parametrize(
    ("text", "last", "repairs"),
    [
        ("a\tO\nb\tO\nc\n", ("c", "O"), "missing tag read as O"),
        ("a\tO\nb\tO\nc\t\n", ("c", "O"), "missing tag read as O"),
        ("a\tO\nb\tO\n\tB-X\n", ("\ufffd", "B-X"), "empty token read as U+FFFD"),
        ("a\tO\nb\tO\nc\tO\t\n", ("c", "O"), "empty columns at the end dropped"),
        ("a O\nb O\nNew York B-X\n", ("New York", "B-X"), "token with spaces kept whole"),
        ("a * O\nb * O\nc B-X\n", ("c", "B-X"), "missing columns before the tag left empty"),
    ],
)
def test_repairs_are_made_and_counted(
    write: Write, text: str, last: tuple[str, str], repairs: str, read: Read
) -> None:
    path = write("a.conll", text)
    with pytest.raises(CorpusError, match=r"a\.conll:3: .*`--data\.repair true`"):
        read(path)
    reading = read(path, repair=True)
    assert (reading.tokens[-1], reading.tags[-1]) == last
    assert reading.repairs == {repairs: 1}


def test_what_has_no_defensible_repair_stays_an_error(write: Write, read: Read) -> None:
    with pytest.raises(CorpusError, match=r"a\.conll:2: expected 2 columns"):
        read(write("a.conll", "a\tO\nb\tO\tx\n"), repair=True)


def test_an_unknown_encoding_is_reported(write: Write, read: Read) -> None:
    path = write("a.conll", "é O\n".encode("latin-1"))
    assert read(path, encoding="latin-1").tokens == ["é"]
    with pytest.raises(
        CorpusError, match=r"a\.conll: unknown encoding: utf-9; correct `--data\.encoding`"
    ):
        read(path, encoding="utf-9")


def test_gzip_is_unpacked_and_its_faults_reported(write: Write, read: Read) -> None:
    packed = gzip.compress(b"a\tO\n" * 99)
    assert read(write("a.conll.gz", packed)).counts == (1, 99)
    for bad in (packed[:-9], b"a\tO\n", packed[:12] + b"\xff" * 20):
        with pytest.raises(
            CorpusError, match=r"a\.conll\.gz: cannot be read .*fetch the file again"
        ):
            read(write("a.conll.gz", bad))


def test_a_file_that_is_gone_is_reported(tmp_path: Path, read: Read) -> None:
    with pytest.raises(CorpusError, match=r"gone\.conll: cannot be read"):
        read(tmp_path / "gone.conll")


@pytest.mark.parametrize(("usual", "other"), [("\t", " "), (" ", "\t")])
@pytest.mark.parametrize("columns", [2, 4])
def test_separators_that_differ_from_line_to_line_lose_no_label(
    write: Write, usual: str, other: str, columns: int, read: Read
) -> None:
    rows = [["Bob", *["x"] * (columns - 2), "B-PER"], ["ran", *["x"] * (columns - 2), "O"]] * 240
    lines = [(other if i % 5 == 4 else usual).join(row) for i, row in enumerate(rows)]
    reading = read(write("a.conll", "\n".join(lines) + "\n"))
    (sentence,) = reading.sentences
    assert (sentence.tokens, sentence.tags) == ([row[0] for row in rows], [row[-1] for row in rows])
    assert not reading.repairs


@pytest.mark.parametrize(
    ("usual", "wrong"),
    [
        ("dog\tx\tNOUN\n", "dog x\tNOUN"),
        ("dog\tNOUN\n", "New York NOUN"),
        ("dog\tx\tNOUN\n", "dog NOUN"),
    ],
)
def test_a_label_is_not_repaired_away(write: Write, usual: str, wrong: str, read: Read) -> None:
    path = write("a.conll", usual * 5 + wrong + "\n")
    for repair in (False, True):
        with pytest.raises(
            CorpusError,
            match=r"a\.conll:6: expected \d columns .*; correct the line .dense_cls.yaml reads texts.$",
        ):
            read(path, label=-1, repair=repair)


def test_a_token_with_spaces_between_tabs_stays_whole(write: Write, read: Read) -> None:
    reading = read(write("a.conll", "a\tO\nNew York\tB-LOC\n"))
    assert reading.sentences[0].tokens == ["a", "New York"]


def test_the_index_in_a_word_that_follows_each_character_is_dropped(
    write: Write, read: Read
) -> None:
    assert read(write("a.conll", "中0 O\n国1 O\n\n中0 O\n")).tokens == ["中", "国", "中"]
    assert "the index is dropped" in read(write("a.conll", "中0 O\n国1 O\n")).notes
    for text in ("中0 O\n国 O\n", "A1 O\nB2 O\n", "a0 O\n\nb0 O\n"):
        tokens = [line.split()[0] for line in text.split("\n") if line]
        assert read(write("a.conll", text)).tokens == tokens


def test_a_short_first_row_does_not_hide_behind_the_others(write: Write, read: Read) -> None:
    with pytest.raises(CorpusError, match=r"a\.conll:2: expected 2 columns as in the first row"):
        read(write("a.conll", "a O\nb NN O\nc NN O\n"))
