"""Column files: one token on each line, its tag in the last column, blank lines between sentences."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from residense.data.readers.file import Column, Example, File

_CHOOSE = "choose with `--data.token_column` and `--data.tag_column`, counted from 0"
_TEXTS = "dense_cls.yaml reads texts"
_SPAN_TAG = re.compile(r"O|[BIESLUM]-.+")
# Two U+FFFD are what became of a character outside the basic plane.
_PLACED = re.compile(r"(.)\ufffd?([0-9]{1,4})", re.DOTALL)


_Row = tuple[int, str]  # line and text


class _Layout(NamedTuple):
    separator: str
    width: int
    token: int
    tag: int

    def split(self, text: str) -> list[str]:
        """Return the cells of a line; a line without a TAB is split at ASCII spaces."""
        if self.separator == "\t" and "\t" in text:
            return [cell.strip(" ") or cell for cell in text.split("\t")]
        return [cell for cell in re.split("[ \t]", text) if cell]

    def is_comment(self, row: _Row) -> bool:
        """Return whether a row begins with # and lacks the columns of the others."""
        cells = row[1].split("\t") if self.separator == "\t" else self.split(row[1])
        return row[1].startswith("#") and len(cells) != self.width


def read_columns(file: File, lines: Sequence[str]) -> list[Example]:
    """Return the sentences of a column file.

    TABs or spaces separate the columns; the first row says how many there are. Tokens are in the first column and
    tags in the last one, unless the columns are chosen. Lines that begin with -DOCSTART- separate sentences, lines
    that begin with "#" and lead a sentence are comments if they lack the columns of a row.

    Raises:
        CorpusError: A row is malformed.
    """
    blocks = _blocks(lines)
    if not blocks:
        return []
    layout = _layout(file, blocks)
    examples = []
    for block in blocks:
        rows = block[len([*takewhile(layout.is_comment, block)]) :]
        cells = [_cells(file, row, layout) for row in rows]
        tags = [row[layout.tag] for row in cells] if file.labeled else []
        if rows:
            examples.append(Example(rows[0][0], [row[layout.token] for row in cells], tags))
    tags = f"tags in column {layout.tag}" if file.labeled else "tags not read"
    separator = "TAB" if layout.separator == "\t" else "space"
    columns = f"tokens in column {layout.token}, {tags} (of {layout.width})"
    file.notes.append(f"{separator}-separated, {columns}")
    return _without_places(file, examples)


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
    if isinstance(file.text_column, str) or isinstance(file.label_column, str):
        line, text = blocks[0].pop(0)  # the header
    layout = _Layout("\t" if "\t" in text else " ", 1, 0, 0)
    cells = layout.split(text)
    if len(cells) == 1 and file.labeled:
        raise file.error(line, "one column only", text, "add a tag to each token")
    tag = _position(file, line, file.label_column, cells, len(cells) - 1)
    usual = 1 if tag == 0 and len(cells) > 1 else 0
    token = _position(file, line, file.text_column, cells, usual)
    return layout._replace(width=len(cells), token=token, tag=tag)


def _position(file: File, line: int, column: Column, cells: list[str], usual: int) -> int:
    if column is None:
        return usual
    if isinstance(column, int) and -len(cells) <= column < len(cells):
        return column % len(cells)
    if column not in cells:
        raise file.error(line, f"no column {column!r} in the first row", cells, _CHOOSE)
    return cells.index(str(column))


def _cells(file: File, row: _Row, layout: _Layout) -> list[str]:
    """Return the cells of a row, with a token and a tag among them."""
    line, text = row
    cells = layout.split(text)
    if len(cells) != layout.width:
        wrong = f"expected {layout.width} columns as in the first row, found {len(cells)}"
        fix = f"correct the line ({_TEXTS})"
        cells, how = _refit(cells, layout)
        if not how:
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


def _refit(cells: list[str], layout: _Layout) -> tuple[list[str], str]:
    """Return cells that fit the layout and what was done; nothing if that would be a guess."""
    missing = layout.width - len(cells)
    usual = layout.token == 0 and layout.tag == layout.width - 1
    tagged = usual and len(cells) > 1 and _SPAN_TAG.fullmatch(cells[-1])
    if not any(cells[layout.width :]) and missing < 0:
        return cells[: layout.width], "empty columns at the end dropped"
    if tagged and missing > 0:
        cells[-1:-1] = [""] * missing
        return cells, "missing columns before the tag left empty"
    if tagged and layout.width == 2 and layout.separator == " ":
        return [" ".join(cells[:-1]), cells[-1]], "token with spaces kept whole"
    if layout.token == 0 and len(cells) == 1:
        return cells + ["O"] * missing, "missing tag read as O"
    return cells, ""


def _without_places(file: File, examples: list[Example]) -> list[Example]:
    """Drop the place in a word that follows each character, as in Weibo NER; refuse texts."""
    tokens = [token for example in examples for token in example.tokens]
    if 2 * sum(" " in token.strip(" ") for token in tokens) > len(tokens):
        raise file.error(examples[0].line, "texts instead of tokens", tokens[0], _TEXTS)
    matches = [_PLACED.fullmatch(token) for token in tokens]
    first = [_PLACED.fullmatch(example.tokens[0]) for example in examples]
    if not all(matches) or any(match[2] != "0" for match in first if match):
        return examples
    if all(match[2] == "0" for match in matches if match):
        return examples
    file.notes.append("each token is a character and its place in a word, the place is dropped")
    return [example._replace(tokens=[token[0] for token in example.tokens]) for example in examples]
