"""CoNLL-U, the format of Universal Dependencies   (https://universaldependencies.org/format.html)."""

import re
from collections.abc import Sequence

from residense.data.readers.file import Column, Example, File

FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_ROW = re.compile(r"[0-9]+([-.][0-9]+)?(\t[^\t]*){9}")
_CHOOSE = (
    f"choose one of {', '.join(FIELDS[1:])} with `--data.token_column` and `--data.tag_column`"
)


def is_conllu(lines: Sequence[str]) -> bool:
    """Return whether the first row has ten columns and a number in the first."""
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return _ROW.fullmatch(first) is not None


def read_conllu(file: File, lines: Sequence[str]) -> list[Example]:
    """Return the sentences of a CoNLL-U file: the forms of the words and their universal parts of speech.

    Multiword tokens (1-2) and empty nodes (8.1) are left out. Other fields are chosen by name or position.

    Raises:
        CorpusError: A row is malformed, or lacks a token or tag.
    """
    token = _field(file, file.text_column, "form")
    tag = _field(file, file.label_column, "upos")
    examples = [Example(1, [], [])]
    skipped = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            examples.append(Example(number + 1, [], []))
        elif not line.startswith("#"):
            if not _ROW.fullmatch(line):
                raise file.error(
                    number, "no row of CoNLL-U", line, "separate an ID and nine columns by TABs"
                )
            cells = line.split("\t")
            if not cells[0].isdecimal():
                skipped += 1
                continue
            examples[-1].tokens.append(_cell(file, number, cells, token))
            if file.labeled:
                examples[-1].tags.append(_cell(file, number, cells, tag))
    tags = f"tags are {FIELDS[tag]}" if file.labeled else "tags not read"
    skip = f"{skipped} rows of multiword tokens and empty nodes skipped"
    file.notes.append(f"CoNLL-U, tokens are {FIELDS[token]}, {tags}, {skip}")
    return [example for example in examples if example.tokens]


def _field(file: File, column: Column, usual: str) -> int:
    if isinstance(column, int) and -10 <= column < 10:
        return column % 10
    if column is not None and column not in FIELDS:
        raise file.error(None, "no such column in CoNLL-U", column, _CHOOSE)
    return FIELDS.index(usual if column is None else str(column))


def _cell(file: File, number: int, cells: list[str], field: int) -> str:
    value = cells[field]
    if not value or (value == "_" and FIELDS[field] != "form"):
        wrong = f"no {FIELDS[field]} in this row"
        raise file.error(number, wrong, "\t".join(cells), f"write it, or {_CHOOSE}")
    return value
