"""Column files and CoNLL-U: a token with its tag on each line, blank lines between sentences."""

import re
from collections.abc import Sequence
from itertools import dropwhile
from typing import NamedTuple

from residense.data.readers.file import Column, Example, File

FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

_CHOOSE = "choose with `--data.token_column` and `--data.tag_column`, counted from 0"
_TEXTS = "dense_cls.yaml reads texts"
_CONLLU = re.compile(r"[0-9]+([-.][0-9]+)?(\t[^\t]*){9}")
_SPAN_TAG = re.compile(r"O|[BIESLUM]-.+")
# U+FFFD is the second half of a character outside the basic plane.
_NUMBERED = re.compile(r"(.)\ufffd?([0-9]{1,4})", re.DOTALL)

_Row = tuple[int, str]  # line and text


class _Layout(NamedTuple):
    """Format, names or positions of the columns, and the columns of tokens and tags."""

    format: str
    names: Sequence[str | int]
    token: int
    tag: int

    def is_comment(self, row: _Row) -> bool:
        """Return whether a row begins with # and lacks the columns of the others."""
        text = row[1]
        cells = _split(text) if self.format == "space-separated" else text.split("\t")
        return text.startswith("#") and len(cells) != len(self.names)


def read_columns(file: File) -> list[Example]:
    """Read the sentences of a column file or a CoNLL-U file.

    TABs or spaces separate the columns; the first row sets their number. Tokens are in the first
    column and tags in the last one, unless columns are chosen. In CoNLL-U they are `form` and
    `upos`, and multiword tokens (1-2) and empty nodes (8.1) are skipped
    (https://universaldependencies.org/format.html). A line that begins with -DOCSTART- ends a
    sentence. Lines that begin with # before a sentence are comments if they lack the columns of a
    row.

    Raises:
        CorpusError: A row is malformed.
    """
    blocks = _blocks(file.lines())
    if not blocks:
        return []
    layout = _layout(file, blocks)
    read_row = _conllu_cells if layout.format == "CoNLL-U" else _cells
    examples = []
    for block in blocks:
        rows = [*dropwhile(layout.is_comment, block)]
        cells = [*filter(None, (read_row(file, row, layout) for row in rows))]
        tags = [row[layout.tag] for row in cells] if file.labeled else []
        if cells:
            examples.append(Example(rows[0][0], [row[layout.token] for row in cells], tags))
    tags = f"tags in column {layout.names[layout.tag]}" if file.labeled else "tags not read"
    columns = f"tokens in column {layout.names[layout.token]}, {tags} (of {len(layout.names)})"
    file.notes.append(f"{layout.format}, {columns}")
    return _without_numbers(file, examples)


def _blocks(lines: Sequence[str]) -> list[list[_Row]]:
    """Return the rows between blank lines; a line of TABs and spaces is blank."""
    blocks: list[list[_Row]] = [[]]
    for number, line in enumerate(lines, 1):
        if line.startswith("-DOCSTART-") or not line.strip(" \t"):
            blocks.append([])
        else:
            blocks[-1].append((number, line))
    return [block for block in blocks if block]


def _layout(file: File, blocks: list[list[_Row]]) -> _Layout:
    rows = [row for block in blocks for row in block]
    line, text = next((row for row in rows if not row[1].startswith("#")), rows[0])
    if file.suffix == "conllu" or _CONLLU.fullmatch(text):
        token = _position(file, line, file.text_column, FIELDS, 1)
        tag = _position(file, line, file.label_column, FIELDS, 3)
        return _Layout("CoNLL-U", FIELDS, token, tag)
    names: Sequence[str | int] = range(len(_split(text)))
    if isinstance(file.text_column, str) or isinstance(file.label_column, str):
        line, text = blocks[0].pop(0)  # the header
        names = _split(text)
    if len(names) == 1 and file.labeled:
        raise file.error(line, "one column only", text, "add a tag to each token")
    tag = _position(file, line, file.label_column, names, len(names) - 1)
    usual = 1 if tag == 0 and len(names) > 1 else 0
    token = _position(file, line, file.text_column, names, usual)
    return _Layout("TAB-separated" if "\t" in text else "space-separated", names, token, tag)


def _position(file: File, line: int, column: Column, names: Sequence[str | int], usual: int) -> int:
    if column is None:
        return usual
    if isinstance(column, int) and -len(names) <= column < len(names):
        return column % len(names)
    if column not in names:
        raise file.error(line, f"no column {column!r}", [*names], _CHOOSE)
    return names.index(column)


def _split(text: str) -> list[str]:
    """Return the cells of a line; a line without a TAB is split at ASCII spaces."""
    if "\t" in text:
        return [cell.strip(" ") or cell for cell in text.split("\t")]
    return [cell for cell in text.split(" ") if cell]


def _conllu_cells(file: File, row: _Row, layout: _Layout) -> list[str]:
    """Return the cells of a row; none if it is not a word."""
    line, text = row
    if not _CONLLU.fullmatch(text):
        raise file.error(line, "no row of CoNLL-U", text, "write an ID and nine columns with TABs")
    cells = text.split("\t")
    if not cells[0].isdecimal():
        return []
    for field in (layout.token, layout.tag) if file.labeled else (layout.token,):
        if not cells[field] or (cells[field] == "_" and FIELDS[field] != "form"):
            raise file.error(line, f"no {FIELDS[field]} in this row", text, f"add it, or {_CHOOSE}")
    return cells


def _cells(file: File, row: _Row, layout: _Layout) -> list[str]:
    """Return the cells of a row, repaired if that is allowed."""
    line, text = row
    cells = _split(text)
    if len(cells) != len(layout.names):
        wrong = f"expected {len(layout.names)} columns as in the first row, found {len(cells)}"
        fix = f"correct the line ({_TEXTS})"
        how = _refit(cells, layout)
        if how is None:
            raise file.error(line, wrong, text, fix)
        file.settle(line, wrong, text, fix, how)
    if not cells[layout.token]:
        file.settle(line, "empty token", text, "write the token", "empty token read as U+FFFD")
        cells[layout.token] = "\ufffd"
    if file.labeled and not cells[layout.tag].strip(" "):
        file.settle(line, "empty tag", text, "write the tag", "missing tag read as O")
        cells[layout.tag] = "O"
    if file.labeled and " " in cells[layout.tag]:
        raise file.error(line, "tag with spaces", text, f"{_CHOOSE}; {_TEXTS}")
    return cells


def _refit(cells: list[str], layout: _Layout) -> str | None:
    """Fit the number of cells to the layout; return the repair, or None if there is none."""
    width = len(layout.names)
    missing = width - len(cells)
    usual = layout.token == 0 and layout.tag == width - 1
    tagged = usual and len(cells) > 1 and _SPAN_TAG.fullmatch(cells[-1])
    if missing < 0 and not any(cells[width:]):
        del cells[width:]
        return "empty columns at the end dropped"
    if tagged and missing > 0:
        cells[-1:-1] = [""] * missing
        return "missing columns before the tag left empty"
    if tagged and width == 2 and layout.format == "space-separated":
        cells[:-1] = [" ".join(cells[:-1])]
        return "token with spaces kept whole"
    if layout.token == 0 and len(cells) == 1:
        cells += ["O"] * missing
        return "missing tag read as O"
    return None


def _without_numbers(file: File, examples: list[Example]) -> list[Example]:
    """Remove the index in its word that follows each character, as in Weibo NER; refuse texts."""
    tokens = [token for example in examples for token in example.tokens]
    if 2 * sum(" " in token.strip(" ") for token in tokens) > len(tokens):
        raise file.error(examples[0].line, "texts instead of tokens", tokens[0], _TEXTS)
    numbers = [[_number(token) for token in example.tokens] for example in examples]
    found = {number for sentence in numbers for number in sentence}
    if None in found or found <= {"0"} or any(sentence[0] != "0" for sentence in numbers):
        return examples
    file.notes.append("each token is a character and its index in a word, the index is dropped")
    return [example._replace(tokens=[token[0] for token in example.tokens]) for example in examples]


def _number(token: str) -> str | None:
    match = _NUMBERED.fullmatch(token)
    return match[2] if match else None
