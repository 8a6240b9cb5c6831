"""Write files so that readers and killed processes see all of a file or none of it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # suffix of a file that is being written


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
    except (FileExistsError, FileNotFoundError):  # the process that made it removed all parts
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
