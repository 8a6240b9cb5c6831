"""The lock of a run directory: the operating system frees it when its process ends, even if killed.

On a filesystem without such locks, `filelock` uses a file, which may remain after a kill.
"""

import atexit
import errno
import os
import socket
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from residense.atomic import write_atomically
from residense.errors import UsageError
from residense.messages import say
from residense.run.preemption import job

_held: dict[tuple[int, int], FileLock] = {}  # by device and inode: a directory may be moved


def claim(path: Path) -> None:
    """Lock a run directory for this process, until it ends.

    Raises:
        UsageError: Another process holds the lock.
    """
    folder = path.absolute()
    file = folder / ".lock"
    if file.exists() and _identity(file) in _held:
        return
    lock = FileLock(file, timeout=0.5)  # time for the holder to say who it is
    holder = folder / ".holder"
    try:
        lock.acquire()
    except Timeout:
        other = holder.read_text(errors="replace") if holder.exists() else "another process"
        soft = isinstance(lock, SoftFileLock)
        hint = f"; if that has ended: rm {path}/.lock" if soft else ""
        raise UsageError(f"{path} is in use by {other[:200]}{hint}") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        say(f"{path} cannot be locked ({error.strerror}): start no other run there")
        return
    _held[_identity(file)] = lock
    atexit.register(release, path)
    in_job = f", job {job()}" if job() else ""
    process = f"process {os.getpid()} on {socket.gethostname()}{in_job}"
    write_atomically(holder, process.encode())


def release(path: Path) -> None:
    """Unlock a run directory, if this process holds its lock."""
    file = path.absolute() / ".lock"
    lock = _held.pop(_identity(file), None) if file.exists() else None
    if lock is not None:
        file.with_name(".holder").unlink(missing_ok=True)
        file.unlink()  # while it is locked: nobody else uses it
        lock.release()


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino
