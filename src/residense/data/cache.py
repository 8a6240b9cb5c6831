"""Arrays cached by the content they were made from, safe when several processes start together."""

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
    """Where arrays are kept: $RESIDENSE_CACHE, or `residense` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RESIDENSE_CACHE") or Path(base) / "residense")


def fingerprint(files: Iterable[Path], options: object) -> str:
    """Hash of the bytes of `files`, of the options (anything JSON can write) and of the code that reads them."""
    digest = hashlib.sha256(
        json.dumps([__version__, options], sort_keys=True, default=str).encode()
    )
    code = (p for p in Path(__file__).parent.rglob("*") if p.suffix in (".py", ".txt"))
    for file in (*files, *sorted(code)):
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def cached(key: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays stored under `key`, built and stored first if they are not there.

    Whoever finishes first names the file; a file is complete once it has its name. Where the folder cannot be written,
    nothing is stored.
    """
    path = folder() / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # whatever is wrong with the file, its arrays can be built again
        arrays = build()
    with contextlib.suppress(OSError):
        write_atomically(path, _pack(arrays))
    return arrays


def _pack(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def pack_strings(strings: Iterable[str]) -> np.ndarray:
    """Strings as one array of bytes: UTF-8, each ended by a byte that UTF-8 never holds."""
    return np.frombuffer(
        b"".join(s.encode("utf-8", "surrogatepass") + b"\xff" for s in strings), np.uint8
    )


def unpack_strings(packed: np.ndarray) -> list[str]:
    """The strings of `pack_strings`."""
    return [part.decode("utf-8", "surrogatepass") for part in packed.tobytes().split(b"\xff")[:-1]]
