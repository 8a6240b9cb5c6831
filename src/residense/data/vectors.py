"""Read pretrained word vectors from text files: GloVe, word2vec or fastText, plain, .gz or .zip."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from residense.data.cache import Values, cached, fingerprint
from residense.data.readers.file import largest
from residense.errors import UsageError
from residense.messages import listed


class Vectors(NamedTuple):
    """Words and their vectors: `matrix` [len(words), dim] float32."""

    words: list[str]
    matrix: np.ndarray


def load_vectors(path: str | Path) -> Vectors:
    """Read a vector file, from the cache if it was read before.

    Raises:
        UsageError: A line is malformed, or the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such vector file; name a text file with --data.vectors")
    return Vectors(**cached(fingerprint([path], "vectors"), lambda: _parse(path)))


def _parse(path: Path) -> Values:
    words: dict[str, int] = {}
    rows: list[np.ndarray] = []
    dim = 0
    for number, line in enumerate(_lines(path), 1):
        word, _, rest = line.rstrip(b" \n\r").partition(b" ")
        values = rest.split(b" ")
        if number == 1 and len(values) == 1 and word.isdigit() and values[0].isdigit():
            continue  # word2vec and fastText begin with "<words> <dim>"
        dim = dim or len(values)
        if len(values) != dim:  # a few GloVe words contain spaces
            word = b" ".join((word, *values[:-dim]))
            values = values[-dim:]
        rows.append(_row(values, dim, path, number))
        words.setdefault(word.decode("utf-8", "replace"), len(rows) - 1)
    if not rows:
        raise UsageError(f"{path}: the file has no vectors")
    return {"words": [*words], "matrix": np.stack(rows)[[*words.values()]]}


def _row(values: list[bytes], dim: int, path: Path, number: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            row = np.array(values, np.float32)
    except ValueError:
        row = np.empty(0, np.float32)
    if len(row) != dim or not np.isfinite(row).all():
        shown = b" ".join(values)[:60].decode("utf-8", "replace")
        wrong = f"expected a word and {dim} finite numbers, read {shown!r}"
        raise UsageError(f"{path}:{number}: {wrong}; correct the line")
    return row


def _lines(path: Path) -> Iterator[bytes]:
    left = largest(path.stat().st_size)
    try:
        with _open(path) as stream:
            while line := stream.readline(left + 1):
                left -= len(line)
                if left < 0:
                    wrong = "unpacks to far more than text does; unpack it yourself"
                    raise UsageError(f"{path}: {wrong}")
                yield line
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        # A RuntimeError means that an archive is encrypted.
        wrong = f"cannot be read ({error}); the file is damaged or not what its name says"
        raise UsageError(f"{path}: {wrong}") from None


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".zip":
        open_file: Any = gzip.open if path.suffix == ".gz" else open
        with open_file(path, "rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".txt", ".vec"))]
        if len(names) != 1:
            wrong = f"expected one .txt or .vec file inside, found {listed(names, 3) or 'none'}"
            raise UsageError(f"{path}: {wrong}; extract the right one")
        with archive.open(names[0]) as stream:
            yield stream
