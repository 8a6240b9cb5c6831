"""The directory of a run: all that is needed to understand, resume and repeat it."""

import os
import re
import secrets
import shlex
import sys
import time
from pathlib import Path

from residense.atomic import remove_parts, write_atomically
from residense.errors import UsageError
from residense.run import checkpoint_io, lock
from residense.run.environment import git_state, packages

VARIABLE = "RESIDENSE_RUN_DIR"  # tells the other processes of a run its directory
STAGES = {"validate": "val", "test": "test"}


class RunDirectory:
    """The files of a run; no other module knows their names.

    Args:
        path: The directory, which may not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.metrics = self.path / "metrics.csv"
        self.predictions = self.path / "predictions.jsonl"
        self.own_code = self.path / "own_code"
        self.tensorboard = self.path / "tensorboard"
        self.wandb = self.path / "wandb"
        self.wandb_id = self.path / "wandb_id.txt"

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def create(cls, name: str, chosen: str | None) -> "RunDirectory":
        """Return the chosen directory, that of the main process, or a new one.

        Args:
            name: Name of the run: a new directory is `runs/<name>/<time>-<random id>`.
            chosen: The chosen directory, if any.

        Raises:
            UsageError: It cannot be written.
        """
        inherited = os.environ.get(VARIABLE) if "LOCAL_RANK" in os.environ else None
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder = re.sub(r"[^\w.-]+", "_", name).strip(".") or "run"
        path = Path(chosen or inherited or Path("runs", folder, stamp))
        _refuse_unwritable(path)
        os.environ[VARIABLE] = str(path)
        return cls(path)

    def results(self, stage: str) -> Path:
        """Return the file of the scores of `validate` or `test`."""
        return self.path / f"{STAGES[stage]}.json"

    def confusion(self, stage: str) -> Path:
        """Return the file of the confusion matrix of `validate` or `test`."""
        return self.path / f"{STAGES[stage]}_confusion.png"

    def checkpoint(self, name: str) -> Path:
        """Return the checkpoint `best` or `last`, or what replaces a damaged one."""
        return checkpoint_io.newest(self.checkpoints / f"{name}.ckpt", self.best)

    def runs_inside(self) -> list[Path]:
        """Return the run directories in a folder that is none itself."""
        return sorted(config.parent for config in self.path.glob("*/config.yaml"))

    def is_started(self) -> bool:
        """Return whether a checkpoint was saved there."""
        return any(self.checkpoints.glob("*.ckpt"))

    def claim(self) -> None:
        """Lock the directory until this process ends; clean up after a process that was killed.

        Raises:
            UsageError: Another process has locked it.
        """
        lock.claim(self.path)
        remove_parts(self.path)
        remove_parts(self.checkpoints)

    def release(self) -> None:
        """Unlock the directory."""
        lock.release(self.path)

    def record(self, config: str, arguments: list[str]) -> None:
        """Write the config, the state of git, the packages and the user's modules.

        Args:
            config: All options, as YAML.
            arguments: Words of the command line, which are added to those of earlier commands.
        """
        write_atomically(self.config, config.encode())
        commands = self.path / "command.txt"
        before = commands.read_bytes() if commands.exists() else b""
        command = shlex.join(["python", "main.py", *arguments])
        write_atomically(commands, before + f"{command}\n".encode())
        write_atomically(self.path / "git.txt", git_state().encode())
        write_atomically(self.path / "packages.txt", packages().encode())
        for file in _own_modules():
            write_atomically(self.own_code / file.name, file.read_bytes())


def _refuse_unwritable(path: Path) -> None:
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    wrong = "is read-only" if there.is_dir() else "is not a folder"
    raise UsageError(
        f"{there} {wrong}: the run cannot be saved in {path}; name another folder with --run_dir"
    )


def _own_modules() -> list[Path]:
    """Return the files of modules imported from the working directory."""
    modules = list(sys.modules.values())
    files = {Path(getattr(module, "__file__", None) or "").resolve() for module in modules}
    here = (file for file in files if file.parent == Path.cwd() and file.is_file())
    return sorted(file for file in here if file.name != "main.py")
