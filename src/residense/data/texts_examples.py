"""Rows of cells as texts and their labels, each fault settled with its line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from residense.data.sentences import CorpusError, Faults
from residense.data.texts_layout import Layout
from residense.data.texts_rows import Number


class Example(NamedTuple):
    """A text, its labels, and the 1-based line or row where it begins."""

    text: str
    labels: tuple[str, ...]
    line: int


def examples_of(faults: Faults, layout: Layout, label_separator: str | None) -> Iterator[Example]:
    """The texts of the rows, and their labels where those are read.

    Args:
        faults: The file and whether to repair it; what is repaired is mostly dropped.
        layout: The rows and which column is which.
        label_separator: What separates the labels of a text that may have several or none.

    Raises:
        CorpusError: A row is malformed.
    """
    for line, cells in layout.rows:
        if len(cells) != layout.width:
            wrong = f"expected {layout.width} cells ({layout.kind}), found {len(cells)}"
            _drop(
                faults,
                line,
                wrong,
                cells,
                "correct the row",
                "rows with another number of cells dropped",
            )
            continue
        text = cells[layout.text]
        if not has_text(faults, line, text, cells):
            continue
        labels: tuple[str, ...] | None = ()
        if layout.label is not None:
            labels = _labels(faults, line, cells[layout.label], label_separator)
        if labels is not None:
            yield Example(faults.encodable(line, text), labels, line)


def has_text(faults: Faults, line: int, text: object, read: object = None) -> bool:
    """Whether there is a text; False if the row is to be dropped."""
    if text is not None and (not isinstance(text, str) or isinstance(text, Number)):
        fix = "write a string, or choose `--data.text_column`"
        raise CorpusError(faults.path, line, "text that is no string", text, fix)
    if text is None or not text.strip():
        _drop(
            faults,
            line,
            "empty text",
            read,
            "write a text or remove the row",
            "rows with an empty text dropped",
        )
        return False
    return True


def without_swallowed(
    faults: Faults, examples: list[Example], separator: str, label_last: bool
) -> Iterator[Example]:
    """Drop or refuse texts that quotes hold together though each of their lines is a row, with a label of the file."""
    known = {label for example in examples for label in example.labels}
    for example in examples:
        lines = example.text.split("\n")
        if label_last:
            cells = [line.rpartition(separator)[2] for line in lines[:-1]]
        else:
            cells = [line.partition(separator)[0] for line in lines[1:]]
        if cells and all(cell.strip() in known for cell in cells):
            fix = "close or double the quote that opens the text"
            how = "texts of several rows within quotes dropped"
            _drop(faults, example.line, "quotes around several rows", example.text, fix, how)
        else:
            yield example


def refuse_tokens(path: Path, examples: list[Example]) -> None:
    """Raise if the texts are words with blank lines between some: this is a corpus for tagging."""
    words = sum(
        len(example.text) <= 20 and not re.search(r"\s", example.text) for example in examples
    )
    first, last = examples[0], examples[-1]
    if 10 * words > 9 * len(examples) and last.line - first.line >= len(examples):
        fix = "this looks like a corpus for tagging; if it is not, remove the blank lines"
        raise CorpusError(
            path, first.line, "words and blank lines instead of texts", first.text, fix
        )


def _labels(faults: Faults, line: int, cell: Any, separator: str | None) -> tuple[str, ...] | None:
    """The labels of a cell, or None if the row is to be dropped."""
    if isinstance(cell, list) and separator is None:
        fix = "give `--data.label_separator`, whichever, if a text may have several labels or none"
        raise CorpusError(faults.path, line, "list of labels", cell, fix)
    if isinstance(cell, list):
        parts = cell
    elif separator is None or not isinstance(cell, str):
        parts = [cell]
    else:
        parts = cell.split(separator) if cell.strip() else []
    labels = []
    for part in parts:
        if part is not None and not isinstance(part, str):
            fix = "write a string or a number, or choose `--data.label_column`"
            raise CorpusError(
                faults.path, line, "label that is neither string nor number", part, fix
            )
        if part is None or not part.strip():
            return _drop(
                faults,
                line,
                "empty label",
                cell,
                "write a label",
                "rows with an empty label dropped",
            )
        labels.append(str(faults.encodable(line, part.strip())))
    return tuple(dict.fromkeys(labels))


def _drop(faults: Faults, line: int, wrong: str, read: object, fix: str, how: str) -> None:
    faults.settle(line, wrong, read, fix, True, how)
