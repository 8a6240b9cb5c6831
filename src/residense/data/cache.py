"""Cache arrays by the content they were made from; several processes may do so at once."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from residense import __version__
from residense.atomic import write_atomically

Arrays = dict[str, np.ndarray]


def folder() -> Path:
    """Return the cache folder: $RESIDENSE_CACHE, or `residense` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RESIDENSE_CACHE") or Path(base) / "residense")


def fingerprint(files: Iterable[Path], options: object) -> str:
    """Return a hash of the content of files, of options (anything JSON can write), and of the code that reads them."""
    digest = hashlib.sha256(
        json.dumps([__version__, options], sort_keys=True, default=str).encode()
    )
    code = (p for p in Path(__file__).parent.rglob("*") if p.suffix in (".py", ".txt"))
    for file in (*files, *sorted(code)):
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def cached(key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return the arrays stored under a key; build and store them first if they are not there.

    A file is complete once it has its name. If the folder cannot be written, nothing is stored.
    """
    path = folder() / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # whatever is wrong with the file, its arrays can be built again
        arrays = build()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    with contextlib.suppress(OSError):
        write_atomically(path, buffer.getvalue())
    return arrays


def pack_strings(strings: Iterable[str]) -> np.ndarray:
    """Return strings as one array of bytes: UTF-8, each terminated by a byte that UTF-8 never contains."""
    return np.frombuffer(
        b"".join(s.encode("utf-8", "surrogatepass") + b"\xff" for s in strings), np.uint8
    )


def unpack_strings(packed: np.ndarray) -> list[str]:
    """Return the strings that `pack_strings` was given."""
    return [part.decode("utf-8", "surrogatepass") for part in packed.tobytes().split(b"\xff")[:-1]]
