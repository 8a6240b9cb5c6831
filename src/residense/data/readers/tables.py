"""Tables of texts: CSV, TSV, and lines of a label and a text."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from residense.data.readers.file import Example, File
from residense.data.readers.records import LABEL_NAMES, TEXT_NAMES, Record

_SEPARATORS = {"\t": "TAB", ",": "comma", ";": "semicolon", " ": "space"}


def read_table(file: File) -> Iterator[Record]:
    """Yield the rows of a .csv, .tsv, .txt or .label file.

    CSV has quotes; in the others only a whole cell may be quoted, on one line. The separator is
    that of the first line: a comma, semicolon or TAB in CSV, a TAB in the others; without one, a
    line of .txt or .label is a label, a space and a text. The first row is a header if it names the
    text and the label, or if a column is chosen by name.

    Raises:
        CorpusError: A row is malformed, or has another number of cells than the first.
    """
    lines = file.text().split("\n")
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise file.error(number, "NUL character", line, "try `--data.encoding utf-16`")
    separator = _separator(file, lines)
    rows = _quoted(file, lines, separator) if file.suffix == "csv" else _plain(lines, separator)
    kind = f"{_SEPARATORS[separator]}-separated"
    names: list[str | int] = ["label", "text"] if separator == " " else []
    for line, cells in rows:
        if not names:
            names = _names(file, cells)
            file.notes.append(kind)
            if 0 not in names:  # a header
                continue
        if len(cells) == len(names):
            yield line, dict(zip(names, cells, strict=True))
        else:
            wrong = f"{len(cells)} instead of {len(names)} cells ({kind})"
            how = "rows with another number of cells dropped"
            file.settle(line, wrong, cells, "correct the row", how)


def _separator(file: File, lines: list[str]) -> str:
    first = next((line for line in lines if line.strip()), "")
    order = {"csv": ",;\t", "tsv": "\t,;"}.get(file.suffix, "\t")
    usual = " " if file.suffix in ("txt", "label") else order[0]
    return next((separator for separator in order if separator in first), usual)


def _names(file: File, cells: list[str]) -> list[str | int]:
    """Return the names of the columns, or their positions if the first row is not a header."""
    names = [cell.strip() for cell in cells]
    known = {name.lower() for name in names}
    usual = known & {*TEXT_NAMES} and (known & {*LABEL_NAMES} or not file.labeled)
    chosen = isinstance(file.text_column, str) or isinstance(file.label_column, str)
    if not usual and not chosen:
        return [*range(len(names))]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} {i}" for i, name in enumerate(names)]


def _plain(lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if separator == " ":
            cells = line.lstrip(" ").split(" ", 1)
        else:
            cells = [_unquoted(cell) for cell in line.split(separator)]
        if line.strip(" "):
            yield number, cells


def _unquoted(cell: str) -> str:
    """Return a cell without the quotes around it, if those inside are doubled."""
    inside = cell[1:-1].replace('""', "")
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inside
    return cell[1:-1].replace('""', '"') if quoted else cell


def _quoted(file: File, lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the default is 131,072 characters
    last = len(lines) - (lines[-1] == "")  # the last line end begins no line
    reader = csv.reader((line + "\n" for line in lines[:last]), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        wrong = f"quotes that are not closed or not doubled ({error}, line {reader.line_num})"
        fix = "quote the whole cell, close the quote, and double those inside"
        if "new-line" in str(error):
            wrong = "carriage return outside quotes"
        raise file.error(start, wrong, lines[start - 1], fix) from None


def refuse_swallowed(file: File, examples: Sequence[Example]) -> None:
    """Check that no text is several rows that an unclosed quote has joined.

    Raises:
        CorpusError: Each line of a text has a known label.
    """
    known = {label for example in examples for label in example.labels}
    for example in examples:
        lines = [re.split("[,;\t]", line) for line in str(example.text).split("\n")]
        last = all(cells[-1].strip() in known for cells in lines[:-1])
        first = all(cells[0].strip() in known for cells in lines[1:])
        if len(lines) > 1 and (last or first):
            wrong = "quotes around several rows"
            raise file.error(example.line, wrong, example.text, "close or double the first quote")
