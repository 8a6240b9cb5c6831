"""What reading a corpus gives: sentences and how they were understood, or an error that helps."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from residense.messages import printable

if TYPE_CHECKING:
    from residense.data.columns import Layout

_T = TypeVar("_T")
_SURROGATE = re.compile("[\ud800-\udfff]")


class CorpusError(ValueError):
    """Something wrong in a corpus: `file:line: what is wrong, what was read, how to fix it`."""

    def __init__(
        self, path: Path, line: int | None, wrong: str, read: object = None, fix: str = ""
    ):
        """Compose the message.

        Args:
            path: File or folder at fault.
            line: 1-based line, or None where the whole file is at fault.
            wrong: What is wrong.
            read: What was read there; its repr is shown, shortened.
            fix: How to fix it.
        """
        place = str(path) if line is None else f"{path}:{line}"
        shown = "" if read is None else f", read {_shorten(repr(read))}"
        super().__init__(printable(f"{place}: {wrong}{shown}" + (f"; {fix}" if fix else "")))


class Sentence(NamedTuple):
    """A sentence as the file has it.

    Args:
        tokens: The tokens.
        tags: A tag for each token, in the scheme of the file; empty if unlabelled.
        line: 1-based line where the sentence begins.
        text: The raw text, where the file gives it instead of tokens.
        offsets: Start and end (exclusive) of each token in the text.
    """

    tokens: list[str]
    tags: list[str]
    line: int
    text: str | None = None
    offsets: list[tuple[int, int]] | None = None


@dataclass
class Reading:
    """A corpus file and how it was understood.

    Args:
        path: The file.
        sentences: Its sentences, in order.
        format: What kind of file it is, such as "columns: TAB".
        token_column: Where the tokens were, a 0-based position or a name.
        tag_column: Where the tags were; None if unlabelled.
        repairs: What was repaired, and how often.
        notes: One line for each thing inferred.
        layout: Where things are in a column file.
    """

    path: Path
    sentences: list[Sentence]
    format: str
    token_column: int | str | None = None
    tag_column: int | str | None = None
    repairs: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    layout: "Layout | None" = None


@dataclass
class Faults:
    """Settles each fault of a file: counted and repaired where that is allowed and possible, else an error.

    Args:
        path: The file.
        repair: Whether to repair.
        repairs: What has been repaired so far.
    """

    path: Path
    repair: bool
    repairs: Counter[str] = field(default_factory=Counter)

    def settle(
        self, line: int, wrong: str, read: object, fix: str, repaired: _T | None, how: str
    ) -> _T:
        """Return the repaired value, or raise.

        Args:
            line: Line of the fault.
            wrong: What is wrong.
            read: What was read.
            fix: How the user may fix the file.
            repaired: The value to go on with, None if there is no defensible one.
            how: What the repair does; the key of its count.
        """
        if repaired is None:
            raise CorpusError(self.path, line, wrong, read, fix)
        if not self.repair:
            raise CorpusError(
                self.path, line, wrong, read, f"{fix}, or `--data.repair true` ({how})"
            )
        self.repairs[how] += 1
        return repaired

    def encodable(self, line: int, text: str) -> str:
        """Return the text without halves of surrogate pairs, which JSON can hold and no file."""
        if not _SURROGATE.search(text):
            return text
        repaired, how = _SURROGATE.sub("\ufffd", text), "half a surrogate pair read as U+FFFD"
        return self.settle(
            line, "half a surrogate pair", text, "write the whole character", repaired, how
        )


def no_sentence(path: Path) -> CorpusError:
    """Return the error for a file that turns out to hold no data."""
    return CorpusError(path, None, "no sentence in this file", fix="check that it is the right one")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
