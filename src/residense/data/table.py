"""The lines of a column file as rows of cells, a block of rows for each sentence.

Nothing about a token is taken for granted: an ideographic space, "#0" and NEL are tokens. What separates
columns and how many there are follows from the whole file.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from residense.data.sentences import no_sentence


class Row(NamedTuple):
    """A line of data; `text` is the whole line."""

    line: int
    text: str
    cells: list[str]


class Table(NamedTuple):
    """The rows of a file, most of which have `width` cells."""

    blocks: list[list[Row]]
    separator: str  # "TAB" or "space"
    width: int


def read_table(
    path: Path,
    lines: Sequence[str],
    notes: list[str],
    separator: str | None = None,
    width: int | None = None,
) -> Table:
    """Return the rows of a column file.

    Args:
        path: The file.
        lines: Its lines.
        notes: Receives a line for everything that is skipped or read in another way than the rest.
        separator: What separates columns, where another split has decided it.
        width: The number of columns, likewise.
    """
    numbered = _blocks(lines, notes)
    texts = [text for block in numbered for _, text in block]
    if not texts:
        raise no_sentence(path)
    # Majorities decide, so that one line without its TAB or tag is reported and does not change the reading.
    data = [text for text in texts if not text.startswith("#")] or texts
    separator = separator or (
        "TAB" if 2 * sum("\t" in text for text in data) > len(data) else "space"
    )
    blocks = [
        [Row(line, text, _split(text, separator)) for line, text in block] for block in numbered
    ]
    width = width or _width([row for block in blocks for row in block])
    blocks = _without_comments(blocks, width, notes)
    blocks = _with_other_separators([block for block in blocks if block], separator, width, notes)
    if not blocks:
        raise no_sentence(path)
    return Table(blocks, separator, width)


def _blocks(lines: Sequence[str], notes: list[str]) -> list[list[tuple[int, str]]]:
    """Return the numbered lines between blank ones; a line that holds only TABs and spaces is blank."""
    blocks: list[list[tuple[int, str]]] = [[]]
    documents = 0
    for number, line in enumerate(lines, 1):
        document = line.startswith("-DOCSTART-")
        documents += document
        if document or not line.strip(" \t"):
            blocks.append([])
        else:
            blocks[-1].append((number, line))
    if documents:
        notes.append(f"{documents} -DOCSTART- lines skipped")
    return blocks


def _split(text: str, separator: str) -> list[str]:
    """Return the cells of a line; only TAB and the ASCII space separate, any other space may be a token."""
    if separator == "TAB":
        return [cell.strip(" ") or cell for cell in text.split("\t")]
    return [cell for cell in text.split(" ") if cell]


def _with_other_separators(
    blocks: list[list[Row]], separator: str, width: int, notes: list[str]
) -> list[list[Row]]:
    """Split the lines that do not fit at the other separator as well, where that can be meant only.

    A token may hold a space where TABs separate, so a line with a TAB is not split at its spaces.
    """

    def refit(row: Row) -> Row:
        if len(row.cells) == width or (separator == "TAB" and "\t" in row.text):
            return row
        cells = [cell for cell in re.split("[ \t]", row.text) if cell]
        return row._replace(cells=cells) if len(cells) == width else row

    refitted = [[refit(row) for row in block] for block in blocks]
    changed = sum(
        a is not b
        for pair in zip(blocks, refitted, strict=True)
        for a, b in zip(*pair, strict=True)
    )
    if changed:
        other = "spaces instead of TABs" if separator == "TAB" else "TABs instead of spaces"
        notes.append(f"{changed} lines have {other} between columns")
    return refitted


def _width(rows: list[Row]) -> int:
    data = [row for row in rows if not row.text.startswith("#")] or rows
    return Counter(len(row.cells) for row in data).most_common(1)[0][0]


def _without_comments(blocks: list[list[Row]], width: int, notes: list[str]) -> list[list[Row]]:
    """Drop the lines with "#" that lead a sentence and lack the columns of the data; "#" may be a token."""

    def comment(row: Row) -> bool:
        return row.text.startswith("#") and len(row.cells) != width

    kept = [block[len(list(takewhile(comment, block))) :] for block in blocks]
    if dropped := sum(map(len, blocks)) - sum(map(len, kept)):
        notes.append(f"{dropped} comment lines skipped")
    return kept
