"""The lock of a run directory, which is safe where file locks are not, as on NFS."""

import atexit
import contextlib
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from residense.atomic import create_atomically
from residense.errors import UsageError
from residense.run.preemption import has_ended, job


def claim(path: Path) -> None:
    """Hold a run directory for this job or process until it ends.

    The requeue of the job that holds it takes it over, and so does whoever comes after a holder
    that has certainly ended.

    Raises:
        UsageError: another process holds it.
    """
    lock = path / ".lock"
    while not create_atomically(lock, _own().encode()):
        held = _content(lock)
        try:
            gone = not held or _is_gone(json.loads(held))
            holder = _describe(json.loads(held)) if held else ""
        except (ValueError, KeyError, TypeError, AttributeError):  # not written by this program
            gone, holder = False, "an unknown process"
        if not gone:
            raise UsageError(f"{path} is in use by {holder}; once that has ended: rm {lock}")
        _remove(lock, held)
    atexit.register(release, path)


def release(path: Path) -> None:
    """Release a run directory, unless another process holds it by now."""
    if _content(path / ".lock") == _own():
        (path / ".lock").unlink(missing_ok=True)


def _own() -> str:
    """The content of a lock of this process."""
    pid = os.getpid()
    own = {"job": job(), "host": socket.gethostname(), "pid": pid, "started": _started(pid)}
    return json.dumps(own | _system())


def _system() -> dict[str, str | None]:
    """The boot of the machine and the PID namespace of a container: a PID is unique within them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "namespace": os.readlink("/proc/self/ns/pid")}
    except OSError:  # not Linux
        return {"boot": None, "namespace": None}


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the boot."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _content(lock: Path) -> str:
    try:
        return lock.read_text()
    except FileNotFoundError:  # released a moment ago
        return ""


def _describe(holder: dict[str, Any]) -> str:
    process = f"process {holder['pid']} on {holder['host']}"
    return f"{process}, job {holder['job']}" if holder["job"] else process


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder has certainly ended; what cannot be seen from here may still run."""
    if holder["job"] is not None and holder["job"] == job():
        return True
    if holder["host"] != socket.gethostname():
        return holder["job"] is not None and has_ended(holder["job"])
    system = _system()
    before = {name: holder.get(name, value) for name, value in system.items()}
    if before["boot"] != system["boot"]:
        return True
    return before == system and not _lives(holder["pid"], holder.get("started"))


def _lives(pid: int, started: int | None) -> bool:
    """Whether another process has this PID and, if that is known, this start."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid != os.getpid() and started in (None, _started(pid))


def _remove(lock: Path, held: str) -> None:
    """Remove a stale lock; put it back if it is another one by now."""
    spare = lock.with_name(f".lock-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(lock, spare)
        if spare.read_text() != held:
            os.link(spare, lock)
        spare.unlink()
