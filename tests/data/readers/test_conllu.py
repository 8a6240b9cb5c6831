"""CoNLL-U: words and their parts of speech, and every malformed row with its line."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from residense.data.readers.file import CorpusError

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., SimpleNamespace]


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
def test_rows_of_conllu_that_are_no_words_are_left_out(
    name: str, tmp_path: Path, read: Read
) -> None:
    path = tmp_path / name
    path.write_text(conllu(ROWS) + "\n\n" + conllu(ROWS[1:2]))
    reading = read(path)
    assert [(sentence.tokens, sentence.tags) for sentence in reading.sentences] == [
        (["do", "n't", "#1"], ["AUX", "PART", "NUM"]),
        (["do"], ["AUX"]),
    ]
    columns = "tokens in column form, tags in column upos (of 10)"
    assert reading.notes == f"{name}: CoNLL-U, {columns}"
    assert read(path, label="lemma").tags == read(path, label=2).tags == ["do", "not", "#1", "do"]
    assert read(path, labeled=False).tags == []


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        (
            "1\tdo\tdo",
            None,
            r"a.conllu:2: no upos in this row, read .*; add it, or choose with `--data.token_column`",
        ),
        ("1\tdo", "deprel", "a.conllu:2: no deprel in this row"),
        ("1\t\tdo\tAUX", None, "a.conllu:2: no form in this row"),
        ("x\tdo\tdo\tAUX", None, "a.conllu:2: no row of CoNLL-U"),
        (
            "1\tdo" + "\tx" * 10,
            None,
            "a.conllu:2: no row of CoNLL-U, .*an ID and nine columns with TABs",
        ),
        (ROWS[1], "pos", "a.conllu:2: no column 'pos', read .'id', 'form', 'lemma'"),
        (ROWS[1], 10, "a.conllu:2: no column 10, read"),
        (ROWS[0], None, "no examples"),
    ],
)
def test_malformed_conllu_is_refused(
    row: str, column: Any, message: str, tmp_path: Path, read: Read
) -> None:
    path = tmp_path / "a.conllu"
    path.write_text(conllu([row]))
    with pytest.raises(CorpusError, match=message):
        read(path, label=column)
