"""The shared corpora of tags, to the last count."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from residense.data.readers.file import CorpusError
from residense.data.readers.splits import find_splits
from residense.tags import detect, improper, spans

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., SimpleNamespace]

SHARED = Path(__file__).parents[4] / "shared" / "data"
ODDITIES = SHARED / "format-oddities"
needs_corpora = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the corpora in ../shared/data"
)


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


@needs_corpora
@pytest.mark.parametrize("corpus", COUNTS)
def test_a_corpus_has_the_counts_of_its_readme(corpus: str, read: Read) -> None:
    scheme, expected = COUNTS[corpus]
    readings = [
        read(path) for path in find_splits(SHARED / corpus, "tags", SLOTS.get(corpus)).values()
    ]
    entities = [
        sum(len(spans(sentence.tags)) for sentence in reading.sentences) for reading in readings
    ]
    found = [(*reading.counts, number) for reading, number in zip(readings, entities, strict=True)]
    assert found == expected
    assert {detect(sentence.tags for sentence in reading.sentences) for reading in readings} == {
        scheme
    }
    numbered = sum("its index in a word" in reading.notes for reading in readings)
    assert numbered == (3 if corpus == "weibo-ner" else 0)


@needs_corpora
def test_conllu_gives_words_and_their_upos(read: Read) -> None:
    reading = read(find_splits(SHARED / "ud-ewt")["validation"])
    assert reading.counts == (2001, 25147)
    assert detect(sentence.tags for sentence in reading.sentences) == "none"
    assert len(set(reading.tags)) == 17


@needs_corpora
def test_weibo_characters_lose_their_index_but_not_their_number_sign(read: Read) -> None:
    reading = read(ODDITIES / "weibo_2nd.I-after-O.conll")
    assert reading.tokens[:7] == [*"#2013厦门"]
    assert any(improper(sentence.tags, "IOB2") for sentence in reading.sentences)


@needs_corpora
def test_an_ideographic_space_is_a_token(read: Read) -> None:
    path = ODDITIES / "hironsan.ideographic-space-token.12col.conll"
    with pytest.raises(
        CorpusError, match=r"12col\.conll:20: expected 12 columns as in the first row, found 10"
    ):
        read(path)
    reading = read(path, repair=True)
    assert reading.counts == (2, 106)
    assert "\u3000" in reading.tokens
    assert reading.tags.count("I-ORG") + reading.tags.count("I-ART") >= 3
    assert reading.repairs == {"missing columns before the tag left empty": 4}


@needs_corpora
def test_bytes_that_are_not_utf8_are_reported_or_replaced(read: Read) -> None:
    path = ODDITIES / "weibo_1st.dev.not-utf8.conll"
    with pytest.raises(
        CorpusError,
        match=r"utf8\.conll:996: byte 0xed .*`--data\.encoding latin-1`.*--data\.repair true",
    ):
        read(path)
    reading = read(path, repair=True)
    assert reading.counts == (270, 14509)
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
def test_an_odd_column_file_is_read(
    name: str, expected: tuple[int, int], scheme: str, read: Read
) -> None:
    reading = read(ODDITIES / name)
    assert reading.counts == expected
    assert detect(sentence.tags for sentence in reading.sentences) == scheme
    assert not reading.repairs


@needs_corpora
def test_a_zero_width_space_stays_in_its_token(read: Read) -> None:
    assert "watched\u200bwas" in read(ODDITIES / "wnut17.zero-width-in-token.conll").tokens


@needs_corpora
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "ag-news.doubled-quotes-backslash.csv",
        "ag-news.leading-quote.tsv",
        "banking77.crlf-multiline-quoted.csv",
        "snips.double-trailing-space.seq.in",
        "trec.latin1.label",
    ],
)
def test_a_corpus_for_something_else_is_refused(name: str, repair: bool, read: Read) -> None:
    with pytest.raises(CorpusError, match=rf"{name}:\d+: "):
        read(ODDITIES / name, repair=repair)


@needs_corpora
@pytest.mark.parametrize(
    "name", ["trec/test.tsv", "sst2/dev.tsv", "atis/dev.intent.tsv", "sst5/dev.txt"]
)
def test_a_classification_corpus_is_refused(name: str, read: Read) -> None:
    with pytest.raises(CorpusError, match=rf"{name}:\d+: "):
        read(SHARED / name)
