"""Arrays cached by the content they were made from, safe when several processes start together."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from residense import __version__

Arrays = dict[str, np.ndarray]
PART = ".part"  # how the name of a file ends that is being written


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


def write_atomically(path: Path, content: bytes | memoryview, older: Path | None = None) -> None:
    """Write to a temporary name beside `path`, then rename: a reader sees the old file or the new, never a part.

    The old file is kept as `older`, if that is given.

    Raises:
        OSError: names `path`, whatever file it was that could not be written.
    """
    with _written_beside(path, content) as name:
        if older is not None and path.exists():
            _keep(path, older)
        os.replace(name, path)
    _sync(path.parent)


def create_atomically(path: Path, content: bytes) -> bool:
    """Make a file that has all its content as soon as it is there; false if there is one already."""
    try:
        with _written_beside(path, content) as name:
            try:
                os.link(name, path)
            except FileExistsError:
                raise
            except OSError:  # a filesystem without links: for a moment the file is empty
                with open(path, "xb") as stream:
                    stream.write(content)
    except (
        FileExistsError,
        FileNotFoundError,
    ):  # not found: who made the file has removed all parts
        return False
    return True


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes | memoryview) -> Iterator[str]:
    """A temporary file beside `path`; what goes wrong is said of `path`."""
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only the owner can read
        yield name
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}: nothing was overwritten", str(path)
        ) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left half-written in a folder, for the one process that writes there."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def _keep(path: Path, older: Path) -> None:
    """Give the file at `path` the name `older` as well; the file that had it is replaced."""
    spare = older.with_name(f".{older.name}{PART}")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a filesystem without links: for a moment there is only the older one
        os.replace(path, older)
    else:
        os.replace(spare, older)


def _sync(folder: Path) -> None:
    """Have the names in a folder written to the disk, where the filesystem can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def pack_strings(strings: Iterable[str]) -> np.ndarray:
    """Strings as one array of bytes: UTF-8, each ended by a byte that UTF-8 never holds."""
    return np.frombuffer(
        b"".join(s.encode("utf-8", "surrogatepass") + b"\xff" for s in strings), np.uint8
    )


def unpack_strings(packed: np.ndarray) -> list[str]:
    """The strings of `pack_strings`."""
    return [part.decode("utf-8", "surrogatepass") for part in packed.tobytes().split(b"\xff")[:-1]]
