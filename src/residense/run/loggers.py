"""Loggers of a run that can be resumed: metrics.csv, and one run of W&B.

Lightning's CSV logger deletes its file when the directory is used again, and its W&B logger starts
a new run. metrics.csv is exact; W&B may have the rows since the last checkpoint twice.
"""

import csv
import io
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from residense.atomic import write_atomically
from residense.errors import UsageError
from residense.run.directory import RunDirectory

BUFFERED = 100  # rows that are written together
PATIENCE = 8.0  # seconds in which the server of W&B has to answer when a run starts


class History(Logger):
    """`metrics.csv`: a row for each call, a column for each metric.

    Args:
        path: the file.
        resumed_at: number of rows when the checkpoint was saved that is resumed; later rows are
            removed.

    Attributes:
        num_rows: number of rows logged so far.
    """

    def __init__(self, path: Path, resumed_at: int = 0):
        super().__init__()
        self.path = path
        self.num_rows = len(_read(self.path, resumed_at))
        self._columns: list[str] = []  # of the file, once this process has written it
        self._waiting: list[dict[str, str]] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row."""
        row = {name: str(value) for name, value in metrics.items()}
        self._waiting.append(row | {"step": str(step)})
        self.num_rows += 1
        if len(self._waiting) >= BUFFERED:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Append the buffered rows; rewrite the file if they have new columns.

        Raises:
            OSError: the disk is full.
        """
        if not self._waiting:
            return
        columns = sorted(set(self._columns).union(*self._waiting))
        if columns == self._columns:
            self._append(_lines(columns, self._waiting))
        else:
            rows = [*_read(self.path, self.num_rows - len(self._waiting)), *self._waiting]
            columns = sorted(set().union(*rows))
            header = ",".join(columns) + "\n"
            write_atomically(self.path, (header + _lines(columns, rows)).encode())
        self._columns = columns
        self._waiting = []

    def _append(self, lines: str) -> None:
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as stream:
                stream.write(lines)
        except OSError as error:
            os.truncate(self.path, size)  # the next attempt writes all of them
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def finalize(self, status: str) -> None:
        """Write the buffered rows."""
        self.save()


def _lines(columns: list[str], rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(path: Path, number: int) -> list[dict[str, str]]:
    """The first rows of metrics.csv; an unfinished last line is not a row."""
    if not number or not path.is_file():
        return []
    with path.open(newline="") as stream:
        lines = (line for line in stream if line.endswith("\n"))
        return [row for row, _ in zip(csv.DictReader(lines), range(number), strict=False)]


class Wandb(WandbLogger):
    """WandbLogger that logs offline where the server of W&B cannot be reached.

    Args:
        run_dir: directory of the run.
        options: those of WandbLogger.

    Attributes:
        offline_reason: why the run is logged offline despite a key; empty if it is not.
    """

    def __init__(self, run_dir: Path, **options: Any):
        # an absolute path: the process of W&B may have another working directory
        super().__init__(save_dir=run_dir.absolute(), **options)
        self.offline_reason = ""
        self._wandb_init.pop("anonymous", None)  # deprecated; W&B warns even if it is not set

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of W&B, started by the first call."""
        from wandb.errors import AuthenticationError, CommError, Error

        try:
            return super().experiment
        except CommError as error:
            if self._offline or isinstance(error, AuthenticationError):
                raise _wandb_error(error) from None
            self.offline_reason = str(error).splitlines()[-1]
        except Error as error:
            raise _wandb_error(error) from None
        return self._offline_experiment()

    def _offline_experiment(self) -> Any:
        import wandb

        wandb.teardown()  # its process still holds the id of the run
        self._offline = True
        self._wandb_init["mode"] = "offline"
        return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run after a failure, so that the next run of this process is another one."""
        super().finalize(status)
        if status == "failed" and self._experiment is not None:
            self._experiment.finish(exit_code=1)


def _wandb_error(error: Exception) -> UsageError:
    reason = str(error).splitlines()[0]
    return UsageError(
        f"W&B: {reason}; log to files with WANDB_MODE=offline, or without W&B with --logger csv"
    )


def loggers(
    kind: str, run: RunDirectory, project: str, resumed_at: int
) -> list[Logger] | Literal[False]:
    """Make the loggers that `--logger` names: `wandb`, `csv` or `none`.

    Args:
        kind: value of `--logger`.
        run: directory of the run.
        project: project of W&B.
        resumed_at: rows of metrics.csv that a resumed run keeps.
    """
    if kind == "none":
        return False
    history = History(run.metrics, resumed_at)
    return [history, _wandb(run, project)] if kind == "wandb" else [history]


def _wandb(run: RunDirectory, project: str) -> Logger:
    """W&B, offline without a key; a resumed run keeps its id."""
    try:
        import wandb
    except ModuleNotFoundError:
        raise UsageError(
            "W&B is missing: pip install wandb, or leave it out with --logger csv"
        ) from None

    folder = run.wandb.absolute()
    os.environ.setdefault("WANDB_SILENT", "true")
    # by default these are in the home directory, which may be read-only
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
    settings: dict[str, Any] = {"x_transaction_log_flush_interval": 1.0}  # a kill loses as much
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = PATIENCE
    return Wandb(
        run.path,
        name="/".join(run.path.parts[-2:]),
        project=project,
        offline=os.environ.get("WANDB_MODE") == "offline" or not _has_wandb_login(),
        id=_wandb_id(run.wandb_id),
        resume="allow",  # jsonargparse and Lightning would pass null, which overwrites the run
        settings=wandb.Settings(**settings),
    )


def _wandb_id(file: Path) -> str:
    if file.is_file():
        return file.read_text().strip()
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def _has_wandb_login() -> bool:
    """Return whether W&B can log in without asking: a key in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    host = re.sub(r"^https?://", "", url).split("/")[0]
    names = (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")
    files = [Path(name).expanduser() for name in names if name]
    return any(host in file.read_text(errors="replace") for file in files if file.is_file())


def remember_wandb(run: RunDirectory, trainer_loggers: Iterable[Logger]) -> None:
    """Keep the id of the W&B run, for when it is resumed."""
    for logger in trainer_loggers:
        if isinstance(logger, WandbLogger) and logger.version is not None:
            write_atomically(run.wandb_id, f"{logger.version}\n".encode())
