"""Cache of arrays and lists of strings, with the hash of their sources as key."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from residense import __version__
from residense.atomic import write_atomically

Values = dict[str, Any]  # arrays and lists of strings


def folder() -> Path:
    """Return the cache folder: $RESIDENSE_CACHE, or `residense` in the cache folder of the user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RESIDENSE_CACHE") or Path(base) / "residense")


def fingerprint(files: Iterable[Path], options: object) -> str:
    """Return a hash of the content of files, of JSON-like options, and of the code in data/."""
    settings = json.dumps([__version__, options], sort_keys=True, default=str)
    digest = hashlib.sha256(settings.encode())
    code = (p for p in Path(__file__).parent.rglob("*") if p.suffix in (".py", ".txt"))
    for file in (*files, *sorted(code)):
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def cached(key: str, build: Callable[[], Values]) -> Values:
    """Return the values stored under a key; build and store them if there are none.

    Several processes may do so at the same time. If the folder is not writable, nothing is stored.
    """
    path = folder() / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: unpack(array) for name, array in stored.items()}
    except Exception:  # a missing or damaged file
        values = build()
    buffer = io.BytesIO()
    arrays: Any = {name: pack(value) for name, value in values.items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    with contextlib.suppress(OSError):
        write_atomically(path, buffer.getvalue())
    return values


def pack(value: np.ndarray | list[str]) -> np.ndarray:
    """Return strings as an array of bytes: UTF-8, each followed by a byte that UTF-8 never has."""
    if isinstance(value, np.ndarray):
        return value
    return np.frombuffer(
        b"".join(s.encode("utf-8", "surrogatepass") + b"\xff" for s in value), np.uint8
    )


def unpack(array: np.ndarray) -> Any:
    """Invert `pack`."""
    if array.dtype != np.uint8:
        return array
    return [part.decode("utf-8", "surrogatepass") for part in array.tobytes().split(b"\xff")[:-1]]
