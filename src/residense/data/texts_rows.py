"""Files of labelled texts as rows of cells: CSV, TSV, lines of a label and a text, JSON lines, data sets.

Nothing is guessed about quotes: CSV is read strictly, and TSV has quotes only if all of them are well-formed.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from residense.data.hub import column, is_plain
from residense.data.sentences import CorpusError

_NAMES = {"\t": "TAB", ",": "comma", ";": "semicolon"}


class Number(str):
    """A number of a JSON file or a data set, as it is written there."""


class Row(NamedTuple):
    """A row and the line where it begins; a cell is a string unless JSON or a data set has something else."""

    line: int
    cells: list[Any]


class Grid(NamedTuple):
    """The rows of a file.

    Args:
        rows: The rows.
        kind: What kind of file it is, for the notes.
        names: Names of the columns; None if the first row may hold them, empty if there are none.
        separator: What separates the cells, where one character does.
        quotes: Whether quotes are those of CSV, else they are part of the text; None where no cell begins with one.
    """

    rows: list[Row]
    kind: str
    names: list[str] | None = None
    separator: str = ""
    quotes: bool | None = None


def table(path: Path, text: str, separators: str, quotes: bool | None = None) -> Grid:
    """Return the rows of a .csv or .tsv file.

    Args:
        path: The file.
        text: What it holds.
        separators: What may separate the cells. The first does, unless it does not occur alike in all rows and
            another one does.
        quotes: What another split of the corpus says of quotes between TABs.
    """
    readings = [_attempt(path, text, separators[0], quotes)]
    if not _uniform(readings[0]):
        readings += [_attempt(path, text, separator, quotes) for separator in separators[1:]]
    reading = next((reading for reading in readings[1:] if _uniform(reading)), readings[0])
    if isinstance(reading, CorpusError):
        raise reading
    return reading


def lines_of(
    path: Path, text: str, whole: bool, separator: str = "", quotes: bool | None = None
) -> Grid:
    """Return the rows of a .txt or .label file: separated by TAB if most are, else a label, a space and a text.

    Args:
        path: The file.
        text: What it holds.
        whole: Whether a line without a TAB is all text.
        separator: What separates the cells, where another split of the corpus has decided it.
        quotes: What that says of quotes between TABs.
    """
    lines = [
        (number, line.removesuffix("\r"))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if separator == "\t" or (
        not separator and 2 * sum("\t" in line for _, line in lines) > len(lines)
    ):
        return _tabs(path, text, quotes)
    if whole:
        return Grid([Row(number, [line]) for number, line in lines], "one text a line", [])
    rows = [Row(number, line.lstrip(" ").split(" ", 1)) for number, line in lines]
    return Grid(rows, "a label, a space and a text on each line", [], " ")


def json_lines(path: Path, text: str) -> Grid:
    """Return the objects of a JSON lines file as rows; keys that most of them lack are left out."""
    records = [
        (number, _record(path, number, line))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    counts = Counter(key for _, record in records for key in record)
    names = [key for key, count in counts.items() if 2 * count >= len(records)]
    return Grid(
        [Row(number, [record.get(key) for key in names]) for number, record in records],
        "JSON lines",
        names,
    )


def data_set(path: Path, data: Any) -> Grid:
    """Return the rows of a data set of `datasets`; numbers take their names from the ClassLabel feature."""
    columns = {name: feature for name, feature in data.features.items() if is_plain(feature)}
    cells = [
        [_cell(value, _class_names(feature)) for value in column(path, data, name)]
        for name, feature in columns.items()
    ]
    rows = [Row(number, list(row)) for number, row in enumerate(zip(*cells, strict=True), 1)]
    return Grid(rows, "data set", list(columns))


def _attempt(path: Path, text: str, separator: str, quotes: bool | None) -> Grid | CorpusError:
    try:
        return _tabs(path, text, quotes) if separator == "\t" else _quoted(path, text, separator)
    except CorpusError as error:
        return error


def _uniform(reading: Grid | CorpusError) -> bool:
    """Whether all rows, and more than one, have the same number of cells, and more than one."""
    if isinstance(reading, CorpusError) or len(reading.rows) < 2:
        return False
    widths = {len(row.cells) for row in reading.rows}
    return len(widths) == 1 and max(widths) > 1


def _tabs(path: Path, text: str, quotes: bool | None) -> Grid:
    """Rows of a TSV file.

    Unless another split has decided it, quotes are those of CSV if that is well-formed and swallows no line with a TAB.
    """
    if quotes:
        return _quoted(path, text, "\t")
    opening = _opening_quotes(text, "\t")
    if opening and quotes is None:
        try:
            grid = _quoted(path, text, "\t")
        except CorpusError:
            grid = None
        if grid and not any(
            "\n" in cell and "\t" in cell for row in grid.rows for cell in row.cells
        ):
            return grid
    lines = enumerate(text.split("\n"), 1)
    rows = [
        Row(number, line.removesuffix("\r").split("\t"))
        for number, line in lines
        if line.strip(" \r")
    ]
    kind = "TAB-separated" + ", quotes are part of the text" * opening
    return Grid(rows, kind, separator="\t", quotes=False if opening else None)


def _quoted(path: Path, text: str, separator: str) -> Grid:
    csv.field_size_limit(
        2**31 - 1
    )  # a text may be longer than the 131,072 characters that are the default
    rows = list(_csv_rows(path, text.split("\n"), separator))
    quotes = _opening_quotes(text, separator)
    kind = f"{_NAMES[separator]}-separated" + ", quoted as CSV" * quotes
    return Grid(rows, kind, separator=separator, quotes=quotes or None)


def _opening_quotes(text: str, separator: str) -> bool:
    """Whether a cell begins with a quote; inside a cell it means nothing."""
    return text.startswith('"') or '\n"' in text or f'{separator}"' in text


def _csv_rows(path: Path, lines: Sequence[str], separator: str) -> Iterator[Row]:
    last = len(lines) - (lines[-1] == "")  # the last line end begins no line
    reader = csv.reader((line + "\n" for line in lines[:last]), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                yield Row(start, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        if "new-line" in str(error):
            wrong, fix = (
                "carriage return outside quotes",
                "end the lines with a line feed, and quote such a cell",
            )
        else:
            wrong = f"quotes that are not closed or not doubled ({error}, line {reader.line_num})"
            fix = "quote the whole cell, close the quote, and double those inside"
        raise CorpusError(path, start, wrong, lines[start - 1], fix) from None


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_int=Number, parse_float=Number, parse_constant=Number)
    except (ValueError, RecursionError) as error:
        raise CorpusError(path, number, f"not JSON ({error})", line, "correct the line") from None
    if not isinstance(record, dict):
        raise CorpusError(
            path, number, "no object", record, 'write {"text": "...", "label": "..."}'
        )
    return record


def _class_names(feature: Any) -> Sequence[str] | None:
    return getattr(getattr(feature, "feature", feature), "names", None)


def _cell(value: Any, names: Sequence[str] | None) -> Any:
    if isinstance(value, list):
        return [_cell(item, names) for item in value]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return value
    if names is None:
        return Number(value)
    return names[int(value)] if 0 <= value < len(names) else None  # -1 says that there is no label
