"""Which column holds the texts and which the labels: by name, or by what the columns hold.

Labels are short and few, texts are long and hardly repeat. What that leaves open is an error with the candidates.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from residense.data.columns import Column
from residense.data.sentences import CorpusError
from residense.data.texts_rows import Grid, Row
from residense.messages import listed

_TEXTS = re.compile(
    "texts?|sentences?|content|review|utterance|question|query|document|comment|tweet|body"
)
_LABELS = re.compile("labels?|category|class|intent|sentiment|target|topic|polarity")
_OTHERS = re.compile(
    "title|description|headline|subject|id|idx|index|guid|name|score|rating|stars|source|split|date"
)
_NAME = re.compile(r"[^\W\d][\w.-]*(?: [\w.-]+){0,2}")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_WIDE = re.compile("[\u2e80-\U0003ffff]")
_FEW = 20  # rows; among fewer, that labels differ from each other says nothing


class Rules(NamedTuple):
    """How a file was read, for the other splits of the corpus to be read alike.

    Args:
        kind: Suffix of its name; a file with another one has rules of its own.
        separator: What separates the cells, where one character does.
        quotes: Whether quotes are those of CSV; None where that does not matter.
        header: Whether the columns have names.
        width: How many cells a row has.
        text: Column of the texts, by name if it has one.
        label: Column of the labels, likewise; None if they are not read.
    """

    kind: str
    separator: str
    quotes: bool | None
    header: bool
    width: int
    text: Column
    label: Column


class Layout(NamedTuple):
    """Where things are.

    Args:
        rows: The rows without the header.
        width: How many cells a row has.
        text: Column of the texts.
        label: Column of the labels, None if they are not read.
        kind: What kind of file it is.
        note: What was decided.
        header: Names of the columns, empty if they have none.
    """

    rows: list[Row]
    width: int
    text: int
    label: int | None
    kind: str
    note: str
    header: list[str]

    def name(self, column: int | None) -> Column:
        """What a column is called in all splits: its name, if no other has that, or else its position."""
        unique = (
            column is not None
            and column < len(self.header)
            and self.header.count(self.header[column]) == 1
        )
        return self.header[column] if column is not None and unique else column


class _Profile(NamedTuple):
    """What a column holds; lengths and words are means."""

    rows: int
    distinct: int
    filled: float
    length: float
    words: float

    def sizes(self) -> tuple[float, float, float]:
        return self.distinct, self.length, self.words

    def like_labels(self, share: float = 0.5) -> bool:
        few = self.rows < _FEW or self.distinct <= share * self.rows
        return few and self.filled >= 0.5 and self.words <= 3 and self.length <= 40

    def like_texts(self) -> bool:
        return (
            self.words >= 2
            and (self.rows < _FEW or self.distinct >= 0.3 * self.rows)
            and not self.like_labels()
        )


def find_layout(
    path: Path, grid: Grid, text: Column, label: Column, labelled: bool, like: Rules | None = None
) -> Layout:
    """Return which column is which, and the rows without the header.

    Args:
        path: The file.
        grid: Its rows.
        text: Column of the texts, a 0-based position (negative from the right) or a name; None to infer it.
        label: The same for the labels.
        labelled: Whether there must be labels.
        like: How another split of the corpus was read; this one is read alike.

    Raises:
        CorpusError: There are no rows, no such column, or several that may be meant.
    """
    text, label = (text, label) if like is None else (like.text, like.label)
    label = label if labelled else None
    named = isinstance(text, str) or isinstance(label, str)
    rows, header = grid.rows, grid.names
    if header is None and like and rows:
        _refuse_other_header(path, rows[0], like)
    if header is None and rows and (named or (like.header if like else _is_header(rows))):
        header, rows = _stripped(rows[0]), rows[1:]
    if not rows:
        raise no_text(path)
    width = len(grid.names or ()) or (like.width if like and not like.header else _width(rows))
    if like and not any(len(row.cells) == width for row in rows):
        wrong = (
            f"expected {width} cells ({grid.kind}) as in another split, found {len(rows[0].cells)}"
        )
        raise CorpusError(path, rows[0].line, wrong, rows[0].cells, "write all splits alike")
    choice = _Choice(path, [row for row in rows if len(row.cells) == width], width, header or [])
    text_at, label_at = choice.position(text), choice.position(label)
    if grid.separator == " " and text_at is None and label_at is None:
        text_at, label_at = choice.first_word(labelled)
    else:
        text_at, label_at = choice.complete(text_at, label_at, labelled)
    if text_at == label_at:
        raise choice.error(f"column {text_at} cannot be both text and label", [], [])
    head = f"header {listed(header)}" if header else ""
    where = "labels not read" if label_at is None else f"label in column {choice.called(label_at)}"
    parts = [head or "no header"] if grid.names is None else []
    parts += [f"text in column {choice.called(text_at)}", f"{where} (of {width})"]
    return Layout(rows, width, text_at, label_at, grid.kind, ", ".join(parts), header or [])


def _refuse_other_header(path: Path, first: Row, like: Rules) -> None:
    """Raise if the first row is a header and there is none in the split read before, or the other way round."""
    names = _stripped(first)
    missing = [
        name for name in (like.text, like.label) if isinstance(name, str) and names.count(name) != 1
    ]
    if like.header and missing:
        wrong = f"no column {missing[0]!r} in the header, where another split has it"
        raise CorpusError(path, first.line, wrong, names, "write all splits alike")
    if not like.header and all(map(_usual, names)):
        raise CorpusError(
            path, first.line, "a header, which another split lacks", names, "remove the line"
        )


def no_text(path: Path) -> CorpusError:
    """Return the error for a file that turns out to hold no data."""
    return CorpusError(path, None, "no text in this file", fix="check that it is the right one")


class _Choice:
    """The choice of the columns of a file."""

    def __init__(self, path: Path, rows: list[Row], width: int, header: list[str]):
        self.path, self.rows, self.width, self.header = path, rows, width, header
        self.profiles = [_profile(rows, column) for column in range(width)]

    def position(self, column: Column) -> int | None:
        """The position of a column that the user names."""
        if column is None:
            return None
        if isinstance(column, str):
            count = self.header.count(column)
            if count == 1:
                return self.header.index(column)
            raise self.error(
                f"{count or 'no'} column{'s' * (count > 1)} {column!r} in the header", [], []
            )
        if not -self.width <= column < self.width:
            raise self.error(f"no column {column} among {self.width}", [], [])
        return column % self.width

    def first_word(self, labelled: bool) -> tuple[int, int | None]:
        """Columns of lines of a label and a text; refuses prose, whose first words hardly repeat."""
        if self.width != 2 or not self.profiles[0].like_labels(share=0.2):
            wrong = f"first words that are no labels, {self.profiles[0].distinct} in {len(self.rows)} lines"
            fix = "write a label, a space and a text on each line, or name the file .csv or .tsv if it is one; "
            fix += "a corpus of tags is read by dense_ner.yaml"
            raise CorpusError(self.path, self.rows[0].line, wrong, self.rows[0].cells, fix)
        return 1, 0 if labelled else None

    def complete(
        self, text: int | None, label: int | None, labelled: bool
    ) -> tuple[int, int | None]:
        """Both columns, inferred where not known."""
        if self.width == 1 and labelled:
            raise self.error("one column only, no label", [], [])
        texts = (
            [column for column in self._named(_TEXTS) if column != label]
            if text is None
            else [text]
        )
        labels = (
            [column for column in self._named(_LABELS) if column != text]
            if label is None
            else [label]
        )
        if self.width == 2 and not texts and not labels:
            texts, labels = self._pair()
        free = [column for column in range(self.width) if column not in (*texts, *labels)]
        if not texts:
            texts = (
                free
                if self.width <= 2
                else [column for column in free if self.profiles[column].like_texts()]
            )
        if not labels:
            labels = [column for column in free if self.profiles[column].like_labels()]
        if labelled and len(labels) != 1:
            raise self.error(
                self._wrong(labels, "labels, or texts" if texts == labels else "labels"),
                texts,
                labels,
            )
        if len(texts) != 1:
            raise self.error(self._wrong(texts, "texts"), texts, labels)
        return texts[0], labels[0] if labelled else None

    def _named(self, names: re.Pattern[str]) -> list[int]:
        return [
            column
            for column, name in enumerate(self.header)
            if names.fullmatch(name.strip().lower())
        ]

    def _pair(self) -> tuple[list[int], list[int]]:
        """Of two columns the texts differ more, are longer and have more words; two of these must hold."""
        votes = sum(
            (a > 1.25 * b) - (b > 1.25 * a)
            for a, b in zip(*map(_Profile.sizes, self.profiles), strict=True)
        )
        if abs(votes) < 2:
            return [0, 1], [0, 1]
        text = int(votes < 0)
        return [text], [1 - text] if self.profiles[1 - text].like_labels() else []

    def _wrong(self, candidates: Sequence[int], what: str) -> str:
        if candidates:
            return (
                f"columns {listed(map(self.called, candidates))} of {self.width} may all be {what}"
            )
        return f"none of {self.width} columns looks like {what}"

    def called(self, column: int) -> str:
        """A column for the reader: its position, and its name if it has one."""
        return (
            f"{column} ({listed([self.header[column]])})"
            if column < len(self.header)
            else f"{column}"
        )

    def error(self, wrong: str, texts: Sequence[int], labels: Sequence[int]) -> CorpusError:
        """An error that shows the first row, and how to choose the columns."""
        label, text = (f" {columns[0]}" if columns else "" for columns in (labels, texts))
        fix = f"choose with `--data.label_column{label}` and `--data.text_column{text}`"
        row = self.rows[0]
        return CorpusError(self.path, row.line, wrong, self.header or row.cells, fix)


def _stripped(row: Row) -> list[str]:
    return [str(cell).strip() for cell in row.cells]


def _width(rows: Sequence[Row]) -> int:
    return Counter(len(row.cells) for row in rows).most_common(1)[0][0]


def _profile(rows: Sequence[Row], column: int) -> _Profile:
    cells = [str("" if row.cells[column] is None else row.cells[column]).strip() for row in rows]
    sample = cells[:: len(cells) // 1000 + 1]
    filled = sum(map(bool, cells)) / len(cells)
    length = sum(map(len, sample)) / len(sample)
    words = sum(map(_words, sample)) / len(sample)
    return _Profile(len(cells), len(set(cells)), filled, length, words)


def _words(text: str) -> float:
    """How many words, more or less; scripts without spaces have about two characters in a word."""
    return len(text.split()) + len(_WIDE.findall(text)) / 2


def _is_header(rows: Sequence[Row]) -> bool:
    """Whether the first row names the columns.

    Its cells look like names, and either they are usual ones, or a column holds only numbers below, or short labels
    and long texts follow; none of them may occur below, except that a text may happen to be a usual name.
    """
    head, width = _stripped(rows[0]), _width(rows)
    if (
        len(head) != width
        or not any(head)
        or not all(cell == "" or _NAME.fullmatch(cell) for cell in head)
    ):
        return False
    body = [row for row in rows[1:] if len(row.cells) == width]
    if all(map(_usual, head)):
        return not any(_stripped(row) == head for row in body)
    if any(
        cell and cell in {row.cells[column].strip() for row in body}
        for column, cell in enumerate(head)
    ):
        return False
    if any(map(_usual, head)):
        return True
    numbers = [
        all(_NUMBER.fullmatch(row.cells[column].strip()) for row in body) for column in range(width)
    ]
    if len(body) < 2 or any(numbers):
        return len(body) >= 2
    profiles = [_profile(body, column) for column in range(width)]
    short = len(body) >= _FEW and all(_words(cell) <= 1 for cell in head)
    return short and any(p.like_labels() for p in profiles) and any(p.words >= 3 for p in profiles)


def _usual(name: str) -> bool:
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    return bool(words) and all(
        any(names.fullmatch(word) for names in (_TEXTS, _LABELS, _OTHERS)) for word in words
    )
