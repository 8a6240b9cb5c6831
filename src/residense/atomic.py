"""Write files so that readers and killed processes see all of a file or none of it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # suffix of a file that is being written


def write_atomically(path: Path, content: bytes | memoryview, older: Path | None = None) -> None:
    """Write a temporary file beside `path`, then rename it, so that readers see the old file or the new one.

    Args:
        path: The file.
        content: Its new content.
        older: Name that the old file is kept under, if any.

    Raises:
        OSError: A file could not be written; the error names `path`.
    """
    with _written_beside(path, content) as name:
        if older is not None and path.exists():
            _keep(path, older)
        os.replace(name, path)
    _sync(path.parent)


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes | memoryview) -> Iterator[str]:
    """Yield the name of a temporary file beside `path`; errors name `path`."""
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
    """Remove the temporary files of killed processes from a folder that only this process writes to."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def _keep(path: Path, older: Path) -> None:
    """Link the file at `path` as `older`, replacing what was there."""
    spare = older.with_name(f".{older.name}{PART}")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a filesystem without links: for a moment there is only the older one
        os.replace(path, older)
    else:
        os.replace(spare, older)


def _sync(folder: Path) -> None:
    """Write the names in a folder to the disk, where the filesystem can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
