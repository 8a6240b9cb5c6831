"""Reading corpora: the shared ones to the last count, and every malformed file with its line."""

import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from residense.data.jsonl import read_jsonl
from residense.data.readers import CorpusError, Reading, find_splits, read, read_dataset
from residense.data.sentences import Faults
from residense.data.tokenize import tokenize
from residense.tags import Span, detect, improper, spans

SHARED = Path(__file__).parents[3] / "shared" / "data"
ODDITIES = SHARED / "format-oddities"
needs_corpora = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the corpora in ../shared/data"
)

# Sentences, tokens and entities of train, validation and test, from the README of the corpora.
COUNTS: dict[str, tuple[str, list[tuple[int, int, int]]]] = {
    "wnut17": ("IOB2", [(3394, 62730, 1975), (1009, 15733, 836), (1287, 23394, 1079)]),
    "crossner/politics": ("IOB2", [(200, 8384, 1304), (541, 24624, 3482), (651, 27585, 4209)]),
    "crossner/science": ("IOB2", [(200, 7100, 1075), (450, 16139, 2538), (543, 19487, 3089)]),
    "crossner/music": ("IOB2", [(100, 3909, 648), (380, 15591, 2679), (465, 19605, 3336)]),
    "crossner/literature": ("IOB2", [(100, 3782, 541), (400, 14503, 2130), (416, 16157, 2266)]),
    "crossner/ai": ("IOB2", [(100, 3782, 532), (350, 10919, 1549), (431, 12991, 1809)]),
    "wikigold": ("IOB1", [(1696, 39007, 3558)]),
    "weibo-ner": ("IOB2", [(1350, 73778, 1895), (270, 14509, 389), (270, 14842, 418)]),
    "resume-ner": ("BMES", [(3821, 124099, 13440), (463, 13890, 1497), (477, 15100, 1630)]),
    "atis": ("IOB2", [(4478, 50497, 14851), (500, 5703, 1709), (893, 9164, 2837)]),
    "snips": ("IOB2", [(13084, 117700, 33958), (700, 6384, 1794), (700, 6354, 1790)]),
}
SLOTS = {"atis": "*.slots.conll", "snips": "*.slots.conll"}

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def counts(reading: Reading) -> tuple[int, int]:
    return len(reading.sentences), sum(len(sentence.tokens) for sentence in reading.sentences)


def tokens_of(reading: Reading) -> list[str]:
    return [token for sentence in reading.sentences for token in sentence.tokens]


def tags_of(reading: Reading) -> list[str]:
    return [tag for sentence in reading.sentences for tag in sentence.tags]


@needs_corpora
@pytest.mark.parametrize("corpus", COUNTS)
def test_a_corpus_has_the_counts_of_its_readme(corpus: str) -> None:
    scheme, expected = COUNTS[corpus]
    readings = [read(path) for path in find_splits(SHARED / corpus, SLOTS.get(corpus)).values()]
    entities = [
        sum(len(spans(sentence.tags)) for sentence in reading.sentences) for reading in readings
    ]
    found = [(*counts(reading), number) for reading, number in zip(readings, entities, strict=True)]
    assert found == expected
    assert {detect(sentence.tags for sentence in reading.sentences) for reading in readings} == {
        scheme
    }
    places = [
        note for reading in readings for note in reading.notes if "its place in a word" in note
    ]
    assert len(places) == (3 if corpus == "weibo-ner" else 0)


@needs_corpora
def test_conllu_gives_words_and_their_upos() -> None:
    reading = read(find_splits(SHARED / "ud-ewt")["validation"])
    assert counts(reading) == (2001, 25147)
    assert detect(sentence.tags for sentence in reading.sentences) == "none"
    assert len(set(tags_of(reading))) == 17


ROWS = [
    "1-2\tdon't",
    "1\tdo\tdo\tAUX",
    "2\tn't\tnot\tPART",
    "2.1\tnever\tnever\tADV",
    "3\t#1\t#1\tNUM",
]


def conllu(rows: list[str]) -> str:
    return "# text = don't #1\n" + "".join(
        "\t".join(row.split("\t") + ["_"] * (9 - row.count("\t"))) + "\n" for row in rows
    )


@pytest.mark.parametrize("name", ["a.conllu", "a.txt"])
def test_rows_of_conllu_that_are_no_words_are_left_out(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(conllu(ROWS) + "\n\n" + conllu(ROWS[1:2]))
    reading = read(path)
    assert [(sentence.tokens, sentence.tags) for sentence in reading.sentences] == [
        (["do", "n't", "#1"], ["AUX", "PART", "NUM"]),
        (["do"], ["AUX"]),
    ]
    assert reading.notes == [
        f"{name}: CoNLL-U, tokens are form, tags are upos, 2 rows of multiword tokens and empty nodes skipped"
    ]
    assert (
        tags_of(read(path, tag_column="lemma"))
        == tags_of(read(path, tag_column=2))
        == ["do", "not", "#1", "do"]
    )
    assert tags_of(read(path, labelled=False)) == []


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        (
            "1\tdo\tdo",
            None,
            r"a.conllu:2: no upos in this row, read .*; write it, or choose one of form, lemma, upos",
        ),
        ("1\tdo", "deprel", "a.conllu:2: no deprel in this row"),
        ("1\t\tdo\tAUX", None, "a.conllu:2: no form in this row"),
        (
            "x\tdo\tdo\tAUX",
            None,
            "a.conllu:2: Failed parsing field 'id': 'x' is not a valid ID.*; correct the row",
        ),
        ("2-1\tdo\tdo\tAUX", None, "a.conllu:2: Failed parsing field 'id'"),
        ("1\tdo" + "\tx" * 10, None, "a.conllu:2: expected 10 columns between TABs, found 12"),
        ("1\tdo\tdo  do\tAUX", None, "a.conllu:2: two spaces in a row"),
        (ROWS[1], "pos", "a.conllu: no such column in CoNLL-U, read 'pos'; choose one of form"),
        (ROWS[1], 10, "a.conllu: no such column in CoNLL-U, read 10"),
        (ROWS[0], None, "no sentence"),
    ],
)
def test_malformed_conllu_is_refused(row: str, column: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_text(conllu([row]))
    with pytest.raises(CorpusError, match=message):
        read(path, tag_column=column)


@needs_corpora
def test_weibo_characters_lose_their_places_but_not_their_number_sign() -> None:
    reading = read(ODDITIES / "weibo_2nd.I-after-O.conll")
    assert tokens_of(reading)[:7] == [*"#2013厦门"]
    assert any(improper(sentence.tags, "IOB2") for sentence in reading.sentences)


@needs_corpora
def test_an_ideographic_space_is_a_token() -> None:
    path = ODDITIES / "hironsan.ideographic-space-token.12col.conll"
    with pytest.raises(
        CorpusError, match=r"12col\.conll:20: expected 12 columns .TAB-separated., found 10"
    ):
        read(path)
    reading = read(path, repair=True)
    assert counts(reading) == (2, 106)
    assert "\u3000" in tokens_of(reading)
    assert tags_of(reading).count("I-ORG") + tags_of(reading).count("I-ART") >= 3
    assert reading.repairs == {"missing columns before the tag left empty": 4}


@needs_corpora
def test_bytes_that_are_not_utf8_are_reported_or_replaced() -> None:
    path = ODDITIES / "weibo_1st.dev.not-utf8.conll"
    with pytest.raises(
        CorpusError, match=r"utf8\.conll:996: byte 0xed .*`--data\.encoding`.*--data\.repair true"
    ):
        read(path)
    reading = read(path, repair=True)
    assert counts(reading) == (270, 14509)
    assert reading.repairs == {"undecodable bytes read as U+FFFD": 48}


@needs_corpora
@pytest.mark.parametrize(
    ("name", "expected", "scheme"),
    [
        ("ud-ewt.multiword-emptynode-hash.conllu", (4, 121), "none"),
        ("wikigold.iob1-docstart.conll", (7, 152), "IOB1"),
        ("wnut17.tab-only-separators.conll", (8, 113), "IOB2"),
        ("wnut17.zero-width-in-token.conll", (2, 27), "IOB2"),
    ],
)
def test_an_odd_column_file_is_read(name: str, expected: tuple[int, int], scheme: str) -> None:
    reading = read(ODDITIES / name)
    assert counts(reading) == expected
    assert detect(sentence.tags for sentence in reading.sentences) == scheme
    assert not reading.repairs


@needs_corpora
def test_a_zero_width_space_stays_in_its_token() -> None:
    assert "watched\u200bwas" in tokens_of(read(ODDITIES / "wnut17.zero-width-in-token.conll"))


@needs_corpora
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "ag-news.doubled-quotes-backslash.csv",
        "ag-news.leading-quote.tsv",
        "banking77.crlf-multiline-quoted.csv",
        "snips.double-trailing-space.seq.in",
        "snips.replacement-char.seq.in",
        "trec.latin1.label",
    ],
)
def test_a_corpus_for_something_else_is_refused(name: str, repair: bool) -> None:
    with pytest.raises(CorpusError, match=rf"{name}:\d+: "):
        read(ODDITIES / name, repair=repair)


@needs_corpora
@pytest.mark.parametrize(
    "name", ["trec/test.tsv", "sst2/dev.tsv", "atis/dev.intent.tsv", "sst5/dev.txt"]
)
def test_a_classification_corpus_is_refused(name: str) -> None:
    with pytest.raises(CorpusError, match=rf"{name}:\d+: "):
        read(SHARED / name)


@needs_corpora
def test_slots_beside_intents_are_ambiguous_without_a_pattern() -> None:
    message = r"train\.intent\.tsv, train\.slots\.conll; .*`--data\.files` \(such as \*\.intent\.tsv or \*\.slots"
    with pytest.raises(CorpusError, match=message):
        find_splits(SHARED / "atis")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.conll", "dev.conll", "test.conll"], ["train.conll", "dev.conll", "test.conll"]),
        (["TRAIN.txt", "Valid.TXT"], ["TRAIN.txt", "Valid.TXT", None]),
        (
            ["eng.train.bio", "eng-val.bio", "x_test.bio.gz"],
            ["eng.train.bio", "eng-val.bio", "x_test.bio.gz"],
        ),
        (
            ["train-00000-of-00001.parquet", "README.md"],
            ["train-00000-of-00001.parquet", None, None],
        ),
        (["all.jsonl"], ["all.jsonl", None, None]),
        (["test.tsv", "notes.txt", ".train.tsv", "training.tsv"], [None, None, "test.tsv"]),
    ],
)
def test_splits_are_found_by_name(
    write: Write, tmp_path: Path, names: list[str], expected: list[str | None]
) -> None:
    for name in names:
        write(name, "")
    found = find_splits(tmp_path)
    assert [
        found[s].name if s in found else None for s in ("train", "validation", "test")
    ] == expected


def test_a_pattern_selects_among_the_files(write: Write) -> None:
    write("train.a.tsv", "")
    path = write("train.b.odd", "")
    assert find_splits(path.parent, "*.b.*") == {"train": path}
    with pytest.raises(CorpusError, match=r"no \*\.c here, only train\.a\.tsv, train\.b\.odd"):
        find_splits(path.parent, "*.c")


def test_two_files_for_a_split_are_listed(write: Write) -> None:
    folder = write("dev.conll", "").parent
    write("valid.conll", "")
    with pytest.raises(
        CorpusError,
        match=r"the split validation: dev\.conll, valid\.conll; pass a folder .*--data\.path",
    ):
        find_splits(folder)


def test_a_folder_without_splits_lists_what_is_there(write: Write) -> None:
    folder = write("a.txt", "").parent
    write("b.txt", "")
    (folder / "sub").mkdir()
    with pytest.raises(
        CorpusError, match=r"no train, dev or test file here, only a\.txt, b\.txt, sub/"
    ):
        find_splits(folder)
    with pytest.raises(CorpusError, match="no such file or folder"):
        find_splits(folder / "gone")


def test_columns_are_noted(write: Write) -> None:
    reading = read(write("train.conll", "\ufeffJo\tB-PER\r\nran\tO\r\n\t\r\n \r\nHi\tO"))
    assert [sentence[:3] for sentence in reading.sentences] == [
        (["Jo", "ran"], ["B-PER", "O"], 1),
        (["Hi"], ["O"], 5),
    ]
    assert (reading.format, reading.token_column, reading.tag_column) == ("columns: TAB", 0, 1)
    assert reading.notes == [
        "train.conll: TAB-separated, tokens in column 0, tags in column 1 (of 2)"
    ]


@pytest.mark.parametrize(
    "odd", ["\x85", "\u2028", "\x0b", "\x0c", "\x1c", "\r", "\xa0", "\u3000", "\u200b"]
)
@pytest.mark.parametrize("separator", ["\t", " "])
def test_only_line_feeds_end_a_line(write: Write, odd: str, separator: str) -> None:
    text = f"a{odd}b{separator}O\n{odd}{separator}O\n"
    assert tokens_of(read(write("a.conll", text))) == [f"a{odd}b", odd]


def test_comments_are_what_leads_a_sentence_and_has_other_columns(write: Write) -> None:
    reading = read(write("a.conll", "# id = 1\n# x\n#\tO\na\tO\n#b\tO\n\n#c\tO\n"))
    assert tokens_of(reading) == ["#", "a", "#b", "#c"]
    assert reading.notes[1] == "a.conll: 2 comment lines skipped"


def test_document_lines_end_sentences(write: Write) -> None:
    reading = read(write("a.conll", "-DOCSTART- -X- O\na NN O\n-DOCSTART- -X- O\nb NN O\n"))
    assert [sentence.tokens for sentence in reading.sentences] == [["a"], ["b"]]
    assert reading.notes[1] == "a.conll: 2 -DOCSTART- lines skipped"


CONLL03 = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"


def test_several_columns_of_tags_need_a_choice(write: Write) -> None:
    path = write("a.conll", CONLL03)
    with pytest.raises(
        CorpusError,
        match=r"a\.conll:1: columns 2, 3 of 4, counted from 0, .*`--data\.tag_column 3`.*token_column",
    ):
        read(path)
    assert tags_of(read(path, tag_column=-1)) == ["B-ORG", "O"]
    assert tags_of(read(path, tag_column=1)) == ["NNP", "VBZ"]
    with pytest.raises(CorpusError, match="no column 4 among 4"):
        read(path, tag_column=4)


def test_a_header_names_the_columns(write: Write) -> None:
    path = write("a.tsv", "tag\tword\nB-ORG\tEU\nO\tis\n")
    reading = read(path, token_column="word", tag_column="tag")
    assert (tokens_of(reading), tags_of(reading)) == (["EU", "is"], ["B-ORG", "O"])
    with pytest.raises(
        CorpusError, match=r"a\.tsv:1: no column 'form' in the header, read 'tag\\tword'"
    ):
        read(path, token_column="form")


def test_tags_in_the_first_column_leave_the_second_for_tokens(write: Write) -> None:
    assert tokens_of(read(write("a.tsv", "B-ORG\tEU\nO\tis\n"), tag_column=0)) == ["EU", "is"]


def test_unlabelled_files_need_no_tags(write: Write) -> None:
    reading = read(write("a.txt", "EU\nis\n\nHi\n"), labelled=False)
    assert [sentence[:2] for sentence in reading.sentences] == [(["EU", "is"], []), (["Hi"], [])]
    assert tokens_of(read(write("b.txt", CONLL03), labelled=False)) == ["EU", "rejects"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a\tO\nb\tO\nc\n",
            r":3: expected 2 columns \(TAB-separated\), found 1, read 'c'; correct the line",
        ),
        ("a\tO\nb\tO\tx\n", r":2: expected 2 columns \(TAB-separated\), found 3, read 'b\\tO\\tx'"),
        ("a O\nb O\nNew York B-LOC\n", r":3: expected 2 columns \(space-separated\), found 3"),
        ("a\tO\n\tO\n", r":2: empty token, read '\\tO'; write the token"),
        ("a\tO\nb\t\n", r":2: empty tag, read 'b\\t'; write the tag"),
        ("a\tO\nb\tB LOC\n", ":2: tag with spaces"),
        ("a\nb\n", ":1: one column only, read 'a'"),
        ("a NN x\nb NN y\n", ":1: none of 3 columns looks like tags"),
        ("", ": no sentence in this file"),
        ("\n\n-DOCSTART- O\n", ": no sentence in this file"),
        ("1-2" + "\t_" * 9, ": no sentence in this file"),
    ],
)
def test_malformed_columns_are_reported_with_their_line(
    write: Write, text: str, message: str
) -> None:
    path = write("a.conll", text)
    with pytest.raises(CorpusError, match=r"a\.conll" + message):
        read(path)


def test_a_header_alone_is_no_corpus(write: Write) -> None:
    with pytest.raises(CorpusError, match=r"a\.tsv: no sentence in this file"):
        read(write("a.tsv", "word\ttag\n"), token_column="word")


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
    write: Write, text: str, last: tuple[str, str], repairs: str
) -> None:
    path = write("a.conll", text)
    with pytest.raises(CorpusError, match=r"a\.conll:3: .*`--data\.repair true`"):
        read(path)
    reading = read(path, repair=True)
    assert (tokens_of(reading)[-1], tags_of(reading)[-1]) == last
    assert reading.repairs == {repairs: 1}


def test_what_has_no_defensible_repair_stays_an_error(write: Write) -> None:
    with pytest.raises(CorpusError, match=r"a\.conll:2: expected 2 columns"):
        read(write("a.conll", "a\tO\nb\tO\tx\n"), repair=True)


def test_an_unknown_encoding_is_reported(write: Write) -> None:
    path = write("a.conll", "é O\n".encode("latin-1"))
    assert tokens_of(read(path, encoding="latin-1")) == ["é"]
    with pytest.raises(
        CorpusError, match=r"a\.conll: unknown encoding: utf-9; correct `--data\.encoding`"
    ):
        read(path, encoding="utf-9")


def test_gzip_is_unpacked_and_its_faults_reported(write: Write) -> None:
    packed = gzip.compress(b"a\tO\n" * 99)
    assert counts(read(write("a.conll.gz", packed))) == (1, 99)
    for bad in (packed[:-9], b"a\tO\n", packed[:12] + b"\xff" * 20):
        with pytest.raises(CorpusError, match=r"a\.conll\.gz: corrupt or truncated gzip file"):
            read(write("a.conll.gz", bad))


def test_a_file_that_is_gone_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gone\.conll: cannot be read"):
        read(tmp_path / "gone.conll")


def jsonl(*records: object) -> str:
    return "\n\n".join(json.dumps(record) for record in records)


@pytest.mark.parametrize("key", ["tags", "ner_tags", "labels"])
def test_json_lines_of_tokens_are_read(write: Write, key: str) -> None:
    reading = read(
        write("a.jsonl", jsonl({"tokens": ["EU"], key: ["B-ORG"]}, {"tokens": ["x"], key: ["O"]}))
    )
    assert [sentence[:3] for sentence in reading.sentences] == [
        (["EU"], ["B-ORG"], 1),
        (["x"], ["O"], 3),
    ]
    assert reading.format == "jsonl"


@pytest.mark.parametrize(
    "span",
    [
        {"start": 0, "end": 8, "label": "LOC"},
        {"start": 0, "end": 8, "type": "LOC"},
        [0, 8, "LOC"],
        [0, 9, "LOC"],
    ],
)
def test_json_lines_of_texts_are_tokenised_and_aligned(write: Write, span: object) -> None:
    path = write(
        "a.jsonl.gz", gzip.compress(jsonl({"text": "New York isn't big", "spans": [span]}).encode())
    )
    sentence = read(path).sentences[0]
    assert sentence.tokens == ["New", "York", "is", "n't", "big"]
    assert sentence.tags == ["B-LOC", "I-LOC", "O", "O", "O"]
    assert sentence.text == "New York isn't big"
    assert sentence.offsets == [(0, 3), (4, 8), (9, 11), (11, 14), (15, 18)]


def test_unlabelled_json_lines_need_no_tags(write: Write) -> None:
    reading = read(write("a.jsonl", jsonl({"text": "Hi you"}, {"tokens": ["Hi"]})), labelled=False)
    assert [sentence[:2] for sentence in reading.sentences] == [(["Hi", "you"], []), (["Hi"], [])]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "no object with tokens or text"),
        ({"words": []}, "no object with tokens or text"),
        ({"tokens": []}, "tokens are no list of strings"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "empty string in tokens"),
        ({"tokens": ["a"]}, "no tags"),
        ({"tokens": ["a"], "tags": [0]}, r"tags are no list of strings.*tag names, not numbers"),
        ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens but 2 tags"),
        ({"text": " ", "spans": []}, "blank or no text"),
        ({"text": "a"}, "no list of spans"),
        ({"text": "a", "spans": [[0, 2, "X"]]}, "not a span in this text"),
        ({"text": "a", "spans": [{"start": 0, "end": 1}]}, "not a span in this text"),
        ({"text": "a b", "spans": [[1, 2, "X"]]}, "span of nothing but spaces"),
        ({"text": "ab c", "spans": [[0, 1, "X"]]}, "span 'a' begins or ends inside a token"),
        ({"text": "a b", "spans": [[0, 1, "X"], [0, 3, "Y"]]}, "overlapping spans"),
        ({"tokens": ["\ud800"], "tags": ["O"]}, "half a surrogate pair"),
    ],
)
def test_malformed_json_lines_are_reported_with_their_line(
    write: Write, record: object, message: str
) -> None:
    with pytest.raises(CorpusError, match=rf"a\.jsonl:3: {message}"):
        read(write("a.jsonl", jsonl({"tokens": ["a"], "tags": ["O"]}, record)))


@pytest.mark.parametrize("line", ['{"tokens": ["a"', "[" * 100_000])
def test_what_is_not_json_is_reported_with_its_line(write: Write, line: str) -> None:
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
    write: Write, record: object, expected: list[Span], repairs: str
) -> None:
    reading = read(write("a.jsonl", jsonl(record)), repair=True)
    assert spans(reading.sentences[0].tags) == expected
    assert reading.repairs == {repairs: 1}


@pytest.mark.parametrize(
    ("usual", "other", "note"),
    [
        ("\t", " ", "96 lines have spaces instead of TABs"),
        (" ", "\t", "96 lines have TABs instead of spaces"),
    ],
)
@pytest.mark.parametrize("columns", [2, 4])
def test_separators_that_differ_from_line_to_line_lose_no_label(
    write: Write, usual: str, other: str, note: str, columns: int
) -> None:
    rows = [["Bob", *["x"] * (columns - 2), "B-PER"], ["ran", *["x"] * (columns - 2), "O"]] * 240
    lines = [(other if i % 5 == 4 else usual).join(row) for i, row in enumerate(rows)]
    reading = read(write("a.conll", "\n".join(lines) + "\n"))
    (sentence,) = reading.sentences
    assert (sentence.tokens, sentence.tags) == ([row[0] for row in rows], [row[-1] for row in rows])
    assert any(note in line for line in reading.notes) and not reading.repairs


@pytest.mark.parametrize(
    ("usual", "wrong"),
    [
        ("dog\tx\tNOUN\n", "dog x\tNOUN"),
        ("dog\tNOUN\n", "New York NOUN"),
        ("dog\tx\tNOUN\n", "dog NOUN"),
    ],
)
def test_a_label_is_not_repaired_away(write: Write, usual: str, wrong: str) -> None:
    path = write("a.conll", usual * 5 + wrong + "\n")
    for repair in (False, True):
        with pytest.raises(
            CorpusError, match=r"a\.conll:6: expected \d columns .*; correct the line$"
        ):
            read(path, tag_column=-1, repair=repair)


def test_a_token_with_spaces_between_tabs_stays_whole(write: Write) -> None:
    reading = read(write("a.conll", "a\tO\nNew York\tB-LOC\n"))
    assert reading.sentences[0].tokens == ["a", "New York"]


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("a x O\nb x B-X\n", "c O\n", ":1: expected 3 columns (space-separated), found 2"),
        ("a O\nb B-X\n", "c x O\n", ":1: expected 2 columns (space-separated), found 3"),
        ("a\tx\tO\n", "c d\tO\n", ":1: expected 3 columns (TAB-separated), found 2"),
        ("中0 O\n国1 O\n" * 9, "中 O\n", ":1: token that is no character and its place in a word"),
    ],
)
def test_a_split_that_is_not_written_like_another_is_refused(
    write: Write, train: str, dev: str, message: str
) -> None:
    first = read(write("train.conll", train))
    with pytest.raises(CorpusError, match=re.escape(f"dev.conll{message}")):
        read(write("dev.conll", dev), like=first)


def test_the_columns_of_train_are_those_of_all_splits(write: Write) -> None:
    first = read(write("train.conll", "a NN O B-X\nb NN O O\n"), tag_column=3)
    second = read(
        write("test.conll", "a O NN B-X\n"), like=first
    )  # the second column looks like tags as well
    assert second.tag_column == 3
    places = read(write("train.conll", "中0 O\n国1 O\n"))
    assert read(write("test.conll", "中0 O\n国0 O\n"), like=places).sentences[0].tokens == [
        "中",
        "国",
    ]
    words = read(write("train.conll", "a O\nb O\n"))
    assert read(write("test.conll", "x0 O\ny1 O\n"), like=words).sentences[0].tokens == ["x0", "y1"]


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
    line = json.dumps({"text": text, "spans": [[*pair, "X"] for pair in drawn]})
    reading = read_jsonl(Faults(Path("a.jsonl"), True), [line], True)
    assert spans(reading.sentences[0].tags) == sorted(expected)


@pytest.mark.parametrize("repair", [False, True])
def test_many_spans_in_one_line_take_linear_time(repair: bool) -> None:
    count = 30_000
    found = [[3 * i, 3 * i + 2, "X"] for i in range(count)]
    found += [
        [0, 3 * count - 1, "Y"],
        *([3 * i, 3 * count - 2, "Z"] for i in range(0, count, 100)),
    ] * repair
    line = json.dumps({"text": "ab " * count, "spans": found})
    begin = time.perf_counter()
    tags = read_jsonl(Faults(Path("a.jsonl"), repair), [line], True).sentences[0].tags
    assert time.perf_counter() - begin < 5
    assert tags == (["B-Y"] + ["I-Y"] * (count - 1) if repair else ["B-X"] * count)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"tokens": [["EU", "is"], ["Hi"]], "ner_tags": [[1, 0], [0]]}
    reading = read(parquet(tmp_path, monkeypatch, rows))
    assert [sentence[:3] for sentence in reading.sentences] == [
        (["EU", "is"], ["B-ORG", "O"], 1),
        (["Hi"], ["O"], 2),
    ]
    assert reading.format == "datasets"


@pytest.mark.parametrize("tags", [[[0], [0, 0]], [[0], []], [[0], [-1]]])
def test_a_row_without_tags_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: list[list[int]]
) -> None:
    path = parquet(tmp_path, monkeypatch, {"tokens": [["a"], ["b"]], "ner_tags": tags})
    with pytest.raises(
        CorpusError, match=r"train\.parquet:2: row without a named tag for each token"
    ):
        read_dataset(str(path))


def test_a_hub_data_set_is_read_by_split(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data(dict[str, Any]):
        features = {"tokens": None, "tags": None}  # noqa: RUF012

    data = Data(tokens=[["a"]], tags=[["O"]])
    hub = SimpleNamespace(load_dataset=lambda name: {"train": data, "dev": data, "extra": data})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    readings = read_dataset("user/corpus")
    assert list(readings) == ["train", "validation"]
    assert readings["train"].sentences[0][:2] == (["a"], ["O"])


def test_a_failing_hub_and_a_missing_install_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ConnectionError("no network\nlong story")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    with pytest.raises(
        CorpusError, match=r"^user/corpus: datasets cannot load it \(no network\); check[^\n]*$"
    ):
        read_dataset("user/corpus")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"^user/corpus: .*; pip install datasets$"):
        read_dataset("user/corpus")


def test_a_parquet_file_whose_strings_are_none_is_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    bad = pyarrow.array([b"Anna", b"\xe4"], pyarrow.binary()).view(pyarrow.string())
    tags = pyarrow.array([["O", "O"]])
    table = pyarrow.table({"tokens": pyarrow.ListArray.from_arrays([0, 2], bad), "tags": tags})
    parquet.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(CorpusError, match=r"bad\.parquet: column tokens cannot be read .*utf-8"):
        read(tmp_path / "bad.parquet")
