"""Column files: which column holds tokens and which tags, and the sentences that follow from it.

Whatever is inferred ends up in the notes of the reading; whatever does not fit is an error with its line.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from residense.data.sentences import CorpusError, Faults, Reading, Sentence, no_sentence
from residense.data.table import Row, Table, read_table

Column = int | str | None

_CHOOSE = "choose with `--data.token_column` and `--data.tag_column`"
_SCHEME_TAG = re.compile(r"O|[BIESLUM]-.+")
# Two U+FFFD are what became of a character outside the basic plane.
_SEGMENTED = re.compile(r"(.)\ufffd?([0-9]{1,4})", re.DOTALL)


class Layout(NamedTuple):
    """How a column file is read.

    Args:
        separator: "TAB" or "space".
        width: Number of columns.
        token: Column of the tokens.
        tag: Column of the tags, None if unlabelled.
        places: Whether each token is a character and its place in a word, which is dropped.
    """

    separator: str
    width: int
    token: int
    tag: int | None
    places: bool = False


def read_columns(
    faults: Faults,
    lines: Sequence[str],
    token_column: Column,
    tag_column: Column,
    labelled: bool,
    like: Layout | None = None,
) -> Reading:
    """Return the sentences of a column file.

    Args:
        faults: The file and whether to repair it.
        lines: Its lines.
        token_column: Column of the tokens, a 0-based position (negative from the right) or a name in a header
            line; None to infer it.
        tag_column: The same for the tags.
        labelled: Whether there must be tags; they are not read otherwise.
        like: How another split of the corpus was read; this one is read alike.
    """
    path = faults.path
    notes: list[str] = []
    table = read_table(path, lines, notes, like and like.separator, like and like.width)
    layout = _layout(path, table, token_column, tag_column, labelled, like)
    notes.insert(0, _describe(layout))
    sentences = [_sentence(faults, block, layout) for block in table.blocks if block]
    _refuse_texts(path, sentences)
    if layout.places or (like is None and _have_places(sentences)):
        layout = layout._replace(places=True)
        notes.append("each token is a character and its place in a word, the place is dropped")
        sentences = [_without_places(path, sentence) for sentence in sentences]
    notes = [f"{path.name}: {note}" for note in notes]
    kind = f"columns: {layout.separator}"
    return Reading(path, sentences, kind, layout.token, layout.tag, faults.repairs, notes, layout)


def _layout(
    path: Path, table: Table, token: Column, tag: Column, labelled: bool, like: Layout | None
) -> Layout:
    """Return what is where; takes a header line off the table if a column is chosen by name."""
    if isinstance(token, str) or isinstance(tag, str):
        header = table.blocks[0].pop(0)
        token, tag = _named(path, token, header), _named(path, tag, header)
    elif like is not None:
        return like
    rows = [row for block in table.blocks for row in block if len(row.cells) == table.width]
    if not rows:
        raise no_sentence(path)
    token_at, tag_at = _position(path, token, table.width), _position(path, tag, table.width)
    if token_at is None:
        token_at = int(labelled and tag_at == 0 and table.width > 1)
    if not labelled:
        tag_at = None
    elif tag_at is None:
        tag_at = _tag_position(path, rows, table.width, token_at)
    return Layout(table.separator, table.width, token_at, tag_at, like is not None and like.places)


def _named(path: Path, column: Column, header: Row) -> Column:
    if not isinstance(column, str):
        return column
    if column not in header.cells:
        raise CorpusError(
            path, header.line, f"no column {column!r} in the header", header.text, _CHOOSE
        )
    return header.cells.index(column)


def _position(path: Path, column: Column, width: int) -> int | None:
    if column is None:
        return None
    if not isinstance(column, int) or not -width <= column < width:
        raise CorpusError(
            path, None, f"no column {column} among {width}, counted from 0", fix=_CHOOSE
        )
    return column % width


def _tag_position(path: Path, rows: list[Row], width: int, token: int) -> int:
    """Return the only column, tokens aside, that can hold the tags."""
    others = [column for column in range(width) if column != token]
    candidates = (
        others if width == 2 else [column for column in others if _holds_tags(rows, column)]
    )
    if len(candidates) == 1:
        return candidates[0]
    if width == 1:
        wrong, fix = "one column only", "tagging needs a token and a tag on each line"
    elif candidates:
        shown = ", ".join(map(str, candidates[:10])) + ", ..." * (len(candidates) > 10)
        wrong = f"columns {shown} of {width}, counted from 0, all look like tags"
        fix = f"choose one, such as `--data.tag_column {candidates[-1]}`; `--data.token_column` chooses the tokens"
    else:
        wrong = f"none of {width} columns looks like tags (O, B-, I-)"
        fix = f"a corpus of texts is read by dense_cls.yaml; where this is one of tags, {_CHOOSE}"
    raise CorpusError(path, rows[0].line, wrong, rows[0].text, fix)


def _holds_tags(rows: list[Row], column: int) -> bool:
    cells = {row.cells[column] for row in rows} - {""}
    return bool(cells) and all(map(_SCHEME_TAG.fullmatch, cells))


def _sentence(faults: Faults, block: list[Row], layout: Layout) -> Sentence:
    entries = [_entry(faults, row, layout) for row in block]
    tags = [] if layout.tag is None else [tag for _, tag in entries]
    return Sentence([token for token, _ in entries], tags, block[0].line)


def _entry(faults: Faults, row: Row, layout: Layout) -> tuple[str, str]:
    """Return token and tag of a row; the tag is "O" if unlabelled."""
    line, text, cells = row
    if len(cells) != layout.width:
        wrong = (
            f"expected {layout.width} columns ({layout.separator}-separated), found {len(cells)}"
        )
        cells = faults.settle(line, wrong, text, "correct the line", *_refit(cells, layout))
    token = cells[layout.token]
    tag = "O" if layout.tag is None else cells[layout.tag]
    if not token:
        how = "empty token read as U+FFFD"
        token = faults.settle(line, "empty token", text, "write the token", "\ufffd", how)
    if not tag.strip(" "):
        tag = faults.settle(line, "empty tag", text, "write the tag", "O", "missing tag read as O")
    if " " in tag:
        fix = "a tag has no spaces: check that this is a tagging corpus, or choose `--data.tag_column`"
        raise CorpusError(faults.path, line, "tag with spaces", text, fix)
    return token, tag


def _refit(cells: list[str], layout: Layout) -> tuple[list[str] | None, str]:
    """Return cells that fit the layout, None if that would be a guess, and what was done."""
    separator, width, token, tag, _ = layout
    missing = width - len(cells)
    tag_last = tag == width - 1 and token < len(cells) - 1 and _SCHEME_TAG.fullmatch(cells[-1])
    if missing < 0 and not any(cells[width:]):
        return cells[:width], "empty columns at the end dropped"
    if missing > 0 and tag_last:
        return [
            *cells[:-1],
            *[""] * missing,
            cells[-1],
        ], "missing columns before the tag left empty"
    if (
        missing > 0
        and tag is not None
        and token == 0
        and len(cells) == 1
        and not re.search("[ \t]", cells[0])
    ):
        return cells + ["O"] * missing, "missing tag read as O"
    if missing < 0 and tag_last and width == 2 and separator == "space":
        return [" ".join(cells[:-1]), cells[-1]], "token with spaces kept whole"
    return None, ""


def _refuse_texts(path: Path, sentences: list[Sentence]) -> None:
    """Raise if most tokens hold spaces: this is a corpus for classification."""
    spaced = sum(" " in token.strip(" ") for sentence in sentences for token in sentence.tokens)
    if 2 * spaced > sum(len(sentence.tokens) for sentence in sentences):
        first = sentences[0]
        fix = "this looks like text classification; check the file, or choose `--data.token_column`"
        raise CorpusError(path, first.line, "texts instead of tokens", first.tokens[0], fix)


def _have_places(sentences: list[Sentence]) -> bool:
    """Whether each token is a character and its place in a word, as in Weibo NER.

    Places count up from 0 in each word. One in a hundred need not, as the corpus itself has such a slip.
    """
    total = slips = highest = 0
    for sentence in sentences:
        previous = -1
        for token in sentence.tokens:
            match = _SEGMENTED.fullmatch(token)
            if match is None:
                return False
            place = int(match[2])
            slips += place not in (0, previous + 1)
            total, highest, previous = total + 1, max(highest, place), place
    return highest > 0 and 100 * slips <= total


def _without_places(path: Path, sentence: Sentence) -> Sentence:
    for line, token in enumerate(sentence.tokens, sentence.line):
        if not _SEGMENTED.fullmatch(token):
            fix = "write the token as in the other splits of this corpus"
            raise CorpusError(
                path, line, "token that is no character and its place in a word", token, fix
            )
    return sentence._replace(tokens=[token[0] for token in sentence.tokens])


def _describe(layout: Layout) -> str:
    tags = "tags not read" if layout.tag is None else f"tags in column {layout.tag}"
    return (
        f"{layout.separator}-separated, tokens in column {layout.token}, {tags} (of {layout.width})"
    )
