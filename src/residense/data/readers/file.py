"""A corpus file: its decoded content, its repairs, and errors that name its lines."""

import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from residense.errors import UsageError
from residense.messages import printable

STDIN = Path("standard input")
Column = int | str | None
Kind = Literal["tags", "texts"]


class CorpusError(UsageError):
    """Something is wrong in a corpus: `file:line: what is wrong, what was read; how to fix it`.

    Args:
        path: File or folder.
        line: 1-based line, or None if the error concerns the whole file.
        wrong: What is wrong.
        read: What was read there; its repr is shown, shortened.
        fix: How to fix it.
    """

    def __init__(self, path: Path, line: int | None, wrong: str, read: object, fix: str):
        place = str(path) if line is None else f"{path}:{line}"
        shown = "" if read is None else repr(read)
        if shown:
            shown = f", read {shown if len(shown) <= 80 else f'{shown[:77]}...'}"
        super().__init__(printable(f"{place}: {wrong}{shown}; {fix}"))


class Example(NamedTuple):
    """A sentence with tags or a text with labels.

    Attributes:
        line: 1-based line or row where the example begins.
        tokens: Tokens of a sentence; empty for a text to classify.
        tags: A tag for each token, in the scheme of the file; empty if unlabeled.
        text: The raw text, where the corpus has it.
        offsets: Start and end (exclusive) of each token in the text.
        labels: Labels of a text.
    """

    line: int
    tokens: list[str]
    tags: list[str]
    text: str | None = None
    offsets: list[tuple[int, int]] | None = None
    labels: tuple[str, ...] = ()


@dataclass
class File:
    """A corpus file and how to read it.

    Args:
        path: The file, or the name of a data set for error messages.
        kind: Content: sentences with "tags", or "texts" with labels.
        text_column: Column of the tokens or texts: a 0-based position, negative from the right, or
            a name. None for the convention of the format.
        label_column: Column of the tags or labels, likewise.
        encoding: Encoding of the file.
        repair: Whether to repair or drop what is malformed, and count it, instead of raising.
        labeled: Whether the examples must have tags or labels, which are ignored otherwise.
        label_separator: Separator of the labels of a text with any number of labels; None for one
            label.
        rows: The rows of a data set, instead of those in a file.
        notes: Messages on how the file was read.
        repairs: Number of repairs of each kind.
    """

    path: Path
    kind: Kind = "tags"
    text_column: Column = None
    label_column: Column = None
    encoding: str = "utf-8"
    repair: bool = False
    labeled: bool = True
    label_separator: str | None = None
    rows: Iterable[Any] | None = None
    notes: list[str] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return the notes and repairs."""
        repairs = [f"repaired {count}: {what}" for what, count in self.repairs.items()]
        return f"{self.path.name}: {', '.join([*self.notes, *repairs])}"

    @property
    def suffix(self) -> str:
        """Suffix of the name in lower case, without the dot and without a final .gz."""
        return self.path.name.lower().removesuffix(".gz").rpartition(".")[2]

    def error(self, line: int | None, wrong: str, read: object, fix: str) -> CorpusError:
        """Return an error about this file; see `CorpusError` for the arguments."""
        return CorpusError(self.path, line, wrong, read, fix)

    def settle(
        self, line: int, wrong: str, read: object, fix: str, how: str, count: int = 1
    ) -> None:
        """Count a repair if repairs are allowed.

        Args:
            line: Line of the error.
            wrong: What is wrong.
            read: What was read.
            fix: How to fix the file.
            how: Description of the repair.
            count: Number of places repaired.

        Raises:
            CorpusError: Repairs are not allowed.
        """
        if not self.repair:
            raise self.error(line, wrong, read, f"{fix}, or `--data.repair true` ({how})")
        self.repairs[how] += count

    def drop(self, line: int, wrong: str, read: object) -> None:
        """Count an example that is left out if repairs are allowed.

        Raises:
            CorpusError: Repairs are not allowed.
        """
        self.settle(line, wrong, read, "correct or remove it", f"{wrong} dropped")

    def lines(self) -> list[str]:
        """Return the lines of the file without their ends.

        Only LF and CRLF end a line: other line ends of Unicode, such as NEL, occur inside tokens.
        """
        lines = [line.removesuffix("\r") for line in self.text().split("\n")]
        return lines if lines[-1] else lines[:-1]

    def text(self) -> str:
        """Return the decompressed and decoded content, without a byte order mark."""
        data = self._bytes()
        try:
            return data.decode(self.encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            return self._replaced(data, error.start)
        except (
            LookupError,
            UnicodeError,
        ) as error:  # an unknown encoding, or no place of the error
            raise self.error(None, str(error), None, "correct `--data.encoding`") from None

    def _replaced(self, data: bytes, start: int) -> str:
        """Decode bytes of which some, the first at `start`, are not in the encoding."""
        before = data[:start]
        line = before.decode(self.encoding, "replace").count("\n") + 1
        read = before.rpartition(b"\n")[2] + data[start:].partition(b"\n")[0]
        text = data.decode(self.encoding, "replace")
        count = text.count("\ufffd") - data.decode(self.encoding, "ignore").count("\ufffd")
        wrong = f"byte 0x{data[start]:02x} is not {self.encoding}"
        fix = "name the encoding, such as `--data.encoding latin-1`"
        self.settle(line, wrong, read, fix, "undecodable bytes read as U+FFFD", count)
        return text.removeprefix("\ufeff")

    def _bytes(self) -> bytes:
        if self.path == STDIN:
            return sys.stdin.buffer.read()
        try:
            if self.path.suffix.lower() != ".gz":
                return self.path.read_bytes()
            size = largest(self.path.stat().st_size)
            with gzip.open(self.path) as stream:
                data = stream.read(size + 1)
        except (EOFError, OSError, zlib.error) as error:
            fix = "check `--data.path`, or fetch the file again"
            raise self.error(None, f"cannot be read ({error})", None, fix) from None
        if len(data) > size:
            raise self.error(None, "unpacks to far more than text does", None, "unpack it by hand")
        return data


def largest(packed: int) -> int:
    """Return how many bytes a file of `packed` bytes may unpack to; text packs to about a tenth."""
    return max(1 << 20, 50 * packed)
