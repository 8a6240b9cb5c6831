"""CoNLL-U, the format of Universal Dependencies, by the `conllu` library   (universaldependencies.org/format.html).

Words have a whole number for an ID. Rows of multiword tokens (1-2) and of empty nodes (8.1) are no words.
"""

import re
from collections.abc import Sequence
from typing import Any

from conllu.exceptions import ParseException
from conllu.parser import DEFAULT_FIELDS, parse_id_value, parse_line

from residense.data.sentences import CorpusError, Faults, Reading, Sentence, no_sentence

_ROW = re.compile(r"[0-9]+([-.][0-9]+)?\t([^\t]*\t){8}[^\t]*")
_CHOOSE = f"choose one of {', '.join(DEFAULT_FIELDS[1:])} with `--data.token_column` and `--data.tag_column`"
_PARSERS: dict[str, Any] = {field: lambda cells, i: cells[i] for field in DEFAULT_FIELDS[1:]}
_PARSERS["id"] = lambda cells, i: parse_id_value(cells[i])


def is_conllu(lines: Sequence[str]) -> bool:
    """Whether the first row, comments aside, has ten columns and a number in the first."""
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return _ROW.fullmatch(first) is not None


def read_conllu(
    faults: Faults,
    lines: Sequence[str],
    token_column: int | str | None,
    tag_column: int | str | None,
    labelled: bool,
) -> Reading:
    """Return the words of a CoNLL-U file, each with its part of speech (UPOS).

    Args:
        faults: The file and whether to repair it.
        lines: Its lines.
        token_column: Column of the tokens, by its name in the format or its 0-based position; None for form.
        tag_column: The same for the tags; None for upos.
        labelled: Whether there must be tags; they are not read otherwise.

    Raises:
        CorpusError: A row is malformed, or has no token or no tag.
    """
    token = _field(faults, token_column, "form")
    tag = _field(faults, tag_column, "upos") if labelled else None
    sentences, skipped = [Sentence([], [], 1)], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            sentences.append(Sentence([], [], number + 1))
        elif not line.startswith("#"):
            row = _row(faults, number, line)
            if isinstance(row["id"], int):
                sentences[-1].tokens.append(_cell(faults, number, line, row, token))
                if tag is not None:
                    sentences[-1].tags.append(_cell(faults, number, line, row, tag))
            skipped += not isinstance(row["id"], int)
    sentences = [sentence for sentence in sentences if sentence.tokens]
    if not sentences:
        raise no_sentence(faults.path)
    read = f"tokens are {token}, tags " + ("not read" if tag is None else f"are {tag}")
    notes = [
        f"{faults.path.name}: CoNLL-U, {read}, {skipped} rows of multiword tokens and empty nodes skipped"
    ]
    return Reading(faults.path, sentences, "CoNLL-U", token, tag, faults.repairs, notes)


def _field(faults: Faults, column: int | str | None, usual: str) -> str:
    if isinstance(column, int) and -10 <= column < 10:
        column = DEFAULT_FIELDS[column]
    name = usual if column is None else column
    if name not in DEFAULT_FIELDS[1:]:
        raise CorpusError(faults.path, None, "no such column in CoNLL-U", column, _CHOOSE)
    return str(name)


def _row(faults: Faults, number: int, line: str) -> dict[str, Any]:
    cells, wrong = line.split("\t"), ""
    if len(cells) != 10:
        wrong = f"expected 10 columns between TABs, found {len(cells)}"
    elif "  " in line:
        wrong = "two spaces in a row"  # the library takes them for a TAB
    else:
        try:
            return parse_line(line, DEFAULT_FIELDS, _PARSERS)
        except ParseException as error:
            wrong = str(error)[:80]
    raise CorpusError(faults.path, number, wrong, line, "correct the row")


def _cell(faults: Faults, number: int, line: str, row: dict[str, Any], field: str) -> str:
    value = row[field]
    if not value or (value == "_" and field != "form"):
        raise CorpusError(
            faults.path, number, f"no {field} in this row", line, f"write it, or {_CHOOSE}"
        )
    return value
