"""One directory for each run, with all that is needed to understand and repeat it."""

import atexit
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from residense.arguments import UsageError
from residense.atomic import create_atomically, remove_parts, write_atomically
from residense.slurm import has_ended, job

VARIABLE = "RESIDENSE_RUN_DIR"  # by which the processes of one run find its directory


def run_directory(name: str, chosen: str | None) -> Path:
    """The directory of this run: the chosen one, that of the process which started this one, or a new one.

    A new one is `runs/<name>/<time>-<short id>`; two runs started in the same second do not meet.

    Raises:
        UsageError: nothing can be written there.
    """
    inherited = os.environ.get(VARIABLE) if "LOCAL_RANK" in os.environ else None
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    path = Path(
        chosen
        or inherited
        or Path("runs") / (re.sub(r"[^\w.-]+", "_", name).strip(".") or "run") / stamp
    )
    _refuse_what_cannot_be_written(path)
    os.environ[VARIABLE] = str(path)
    return path


def _refuse_what_cannot_be_written(path: Path) -> None:
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    wrong = (
        "is no folder"
        if not there.is_dir()
        else "is read-only"
        if not os.access(there, os.W_OK | os.X_OK)
        else ""
    )
    if wrong:
        raise UsageError(
            f"{there} {wrong}: the run cannot be kept in {path}; name another folder with --run_dir"
        )


def claim(path: Path) -> None:
    """Hold a run directory for this job or process until it ends; safe where file locks are not, as on NFS.

    The holder's own requeue takes it over, and so does whoever comes after a holder that is certainly gone.

    Raises:
        UsageError: someone else holds it.
    """
    lock = path / ".lock"
    while not create_atomically(lock, _own().encode()):
        held = _holder(lock)
        try:
            gone, holder = not held or _is_gone(json.loads(held)), held and _named(json.loads(held))
        except (ValueError, KeyError, TypeError, AttributeError):  # not written by this program
            gone, holder = False, "an unknown process"
        if not gone:
            raise UsageError(f"{path} is in use by {holder}; once that has ended: rm {lock}")
        _take_away(lock, held)
    atexit.register(release, path)
    for folder in (path, path / "checkpoints"):
        remove_parts(folder)


def release(path: Path) -> None:
    """Let a run directory go, unless another process holds it by now."""
    if _holder(path / ".lock") == _own():
        (path / ".lock").unlink(missing_ok=True)


def _own() -> str:
    """What this process writes into the lock of a run directory."""
    pid = os.getpid()
    return json.dumps(
        {
            "job": job(),
            "host": socket.gethostname(),
            "pid": pid,
            "started": _started(pid),
            **_system(),
        }
    )


def _system() -> dict[str, str | None]:
    """What tells a process from one with its number: the boot of the machine, and the PID namespace of a container."""
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


def _holder(lock: Path) -> str:
    try:
        return lock.read_text()
    except FileNotFoundError:  # let go a moment ago
        return ""


def _named(holder: dict[str, Any]) -> str:
    """The holder of a lock as a user finds it."""
    return f"process {holder['pid']} on {holder['host']}" + (
        f", job {holder['job']}" if holder["job"] else ""
    )


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder of a lock has certainly ended; what cannot be seen from here may still run."""
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
    """Whether another process has this number and, if that is known, this start."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid != os.getpid() and started in (None, _started(pid))


def _take_away(lock: Path, held: str) -> None:
    """Remove a stale lock; put it back if it is another by now."""
    spare = lock.with_name(f".lock-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(lock, spare)
        if spare.read_text() != held:
            os.link(spare, lock)
        spare.unlink()


def record_run(path: Path, config: str, arguments: list[str]) -> None:
    """Write the resolved config, the state of git, the versions of all packages, own modules; add to the commands."""
    write_atomically(path / "config.yaml", config.encode())
    commands, command = path / "command.txt", shlex.join(["python", "main.py", *arguments])
    before = commands.read_bytes() if commands.exists() else b""
    write_atomically(commands, before + f"{command}\n".encode())
    write_atomically(path / "git.txt", git_state().encode())
    write_atomically(path / "packages.txt", packages().encode())
    for file in own_modules():
        write_atomically(path / "own_code" / file.name, file.read_bytes())


def own_modules() -> list[Path]:
    """The files of classes of one's own: modules that were imported from where one stands; git may not know them."""
    files = {
        Path(getattr(module, "__file__", None) or "").resolve()
        for module in [*sys.modules.values()]
    }
    return sorted(
        file
        for file in files
        if file.parent == Path.cwd() and file.is_file() and file.name != "main.py"
    )


def packages() -> str:
    """Python, the platform and all installed packages, one a line."""
    installed = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}
    return "\n".join(
        [f"# Python {platform.python_version()}, {platform.platform()}", *sorted(installed), ""]
    )


def surroundings() -> str:
    """What a report of a bug should say: versions, devices, and which commit with how many changed files."""
    package = sys.modules[__name__.split(".")[0]]
    names = ("torch", "lightning", "torchmetrics", "jsonargparse", "numpy", "wandb")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices += ["MPS"] * torch.backends.mps.is_available()
    state = git_state()
    if state.startswith("# "):
        commit, _, status, _ = (part.splitlines()[1:] for part in state.split("\n# "))
        state = f"{commit[0]}, {sum(map(bool, status))} changed files"
    lines = [
        f"{package.__name__} {package.__version__}",
        f"Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
        f"devices: {', '.join(devices) or 'no accelerator'}, {os.cpu_count()} CPUs",
        f"git: {state.strip()}",
    ]
    return "\n".join(lines)


def git_state() -> str:
    """Commit, branch and uncommitted changes of the project, or a line that there is no git."""
    commands = ("rev-parse HEAD", "rev-parse --abbrev-ref HEAD", "status --short", "diff HEAD")
    folder = Path(__file__).parent
    parts = []
    for command in commands:
        try:
            done = subprocess.run(
                ["git", *command.split()],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=10,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired):
            return "git is not available\n"
        if done.returncode:
            return "not a git repository\n"
        parts.append(f"# git {command}\n{done.stdout}")
    return "\n".join(parts)


def has_wandb_login() -> bool:
    """Whether W&B can log in without asking: a key in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(
        r"^https?://", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    ).split("/")[0]
    names = (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")
    files = [Path(name).expanduser() for name in names if name]
    return any(host in file.read_text(errors="replace") for file in files if file.is_file())


def is_terminal() -> bool:
    """Whether someone watches standard output."""
    return sys.stdout.isatty()
