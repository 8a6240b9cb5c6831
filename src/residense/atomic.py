"""Write files so that readers and killed processes see all of a file or none of it."""

import contextlib
import os
import secrets
from pathlib import Path

PART = ".part"  # suffix of a file that is being written


def write_atomically(path: Path, content: bytes | memoryview, older: Path | None = None) -> None:
    """Write a file beside `path` and rename it, so that readers see the old file or the new one.

    Args:
        path: The file.
        content: Its new content.
        older: Where to keep the old file, if anywhere.

    Raises:
        OSError: A file could not be written; the error names `path`.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if older is not None and path.exists():
            _keep(path, older)
        os.replace(part, path)
    except OSError as error:
        message = f"{error.strerror}: nothing was overwritten"
        raise OSError(error.errno, message, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    _sync(path.parent)


def remove_parts(folder: Path) -> None:
    """Remove the files of killed processes from a folder that only this process writes to."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def _keep(path: Path, older: Path) -> None:
    """Link the file at `path` as `older`, replacing what was there."""
    spare = older.with_name(f".{older.name}{PART}")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a filesystem without links: for a moment there is only `older`
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
