"""What is logged, and that a resumed run goes on with it: metrics.csv, and one run of W&B.

Lightning's CSV logger deletes its file when it finds a directory in use; its W&B logger begins a new run. W&B writes a
second or more after it was given something, so a killed run has lost there what metrics.csv still holds.
"""

import csv
import io
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from residense.arguments import UsageError
from residense.atomic import write_atomically
from residense.run import has_wandb_login
from residense.wandb_segments import rows, segments

WAITING = 100  # rows that are kept back until they are written together
PATIENCE = 8.0  # seconds in which W&B's server has to answer when a run starts


class History(Logger):
    """`run_dir/metrics.csv`: a row for each call, a column for each metric.

    Args:
        run_dir: directory of the run.
        resumed_at: rows there were when the checkpoint was written that a run goes on with; later ones are cut.

    Attributes:
        num_rows: rows that were logged, and kept of those before.
    """

    def __init__(self, run_dir: Path, resumed_at: int = 0):
        super().__init__()
        self.path, self.num_rows = run_dir / "metrics.csv", len(kept_rows(run_dir, resumed_at))
        self._columns: list[str] | None = (
            None  # of the file; null while it is that of the run before
        )
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
        """They are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row."""
        self._waiting.append(
            {name: str(value) for name, value in metrics.items()} | {"step": str(step)}
        )
        self.num_rows += 1
        if len(self._waiting) >= WAITING:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that wait: the file anew where there are new columns, else behind the others.

        Raises:
            OSError: the disk is full.
        """
        if not self._waiting:
            return
        kept = (
            kept_rows(self.path.parent, self.num_rows - len(self._waiting))
            if self._columns is None
            else []
        )
        columns = sorted(set(self._columns or []).union(*kept, *self._waiting))
        if columns != self._columns:
            kept = kept_rows(self.path.parent, self.num_rows - len(self._waiting))
            write_atomically(
                self.path,
                (",".join(columns) + "\n" + _lines(columns, kept + self._waiting)).encode(),
            )
        else:
            self._append(_lines(columns, self._waiting))
        self._columns, self._waiting = columns, []

    def _append(self, lines: str) -> None:
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as stream:
                stream.write(lines)
        except OSError as error:
            os.truncate(
                self.path, size
            )  # a part of them was written, and the next attempt would add all
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def finalize(self, status: str) -> None:
        """Write what waits."""
        self.save()


def _lines(columns: list[str], table: list[dict[str, str]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(table)
    return text.getvalue()


def kept_rows(run_dir: Path, resumed_at: int) -> list[dict[str, str]]:
    """The first rows of metrics.csv; a last line without an end was being written and is none."""
    path = run_dir / "metrics.csv"
    if not resumed_at or not path.is_file():
        return []
    with path.open(newline="") as stream:
        whole = (line for line in stream if line.endswith("\n"))
        return [row for row, _ in zip(csv.DictReader(whole), range(resumed_at), strict=False)]


class Continued(WandbLogger):
    """WandbLogger that logs again, before anything new, what metrics.csv holds and its own files have lost.

    Args:
        run_dir: directory of the run.
        resumed_at: rows of metrics.csv that the run goes on with.
        options: those of WandbLogger.

    Attributes:
        offline_because: why the run is logged offline although there is a key; empty if it is not.
    """

    def __init__(self, run_dir: Path, resumed_at: int = 0, **options: Any):
        super().__init__(
            save_dir=run_dir.absolute(), **options
        )  # W&B's own process may stand elsewhere
        self.run_dir, self.resumed_at, self._taken_over = run_dir, resumed_at, False
        self.offline_because = ""
        self._wandb_init.pop("anonymous", None)  # W&B warns of it even where it is not set

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of W&B; the first call takes over what was logged before, in the main process alone."""
        if self._taken_over:
            return super().experiment
        from wandb.errors import Error

        lost = self._lost()  # before there is a new segment
        try:
            run, self._taken_over = self._online_or_offline(), True
        except Error as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"W&B: {reason}; WANDB_MODE=offline logs to files, --logger csv leaves W&B out"
            ) from None
        for step, values in lost.items():
            self.log_metrics(values, step)
        return run

    def _online_or_offline(self) -> Any:
        import wandb
        from wandb.errors import AuthenticationError, CommError

        try:
            return super().experiment
        except CommError as error:
            if self._offline or isinstance(error, AuthenticationError):
                raise
            self.offline_because = str(error).splitlines()[-1]
        wandb.teardown()  # its process still holds the id of the run
        self._offline, self._wandb_init["mode"] = True, "offline"
        return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run of W&B where training failed: the next run of this process would be logged into it."""
        super().finalize(status)
        if status == "failed" and self._experiment is not None:
            self._experiment.finish(exit_code=1)

    def _lost(self) -> dict[int, dict[str, float]]:
        found = (
            row for segment in segments(self.run_dir, str(self.version)) for row in rows(segment)
        )
        held = {(row.step, name) for row in found for name in row.values}
        lost: dict[int, dict[str, float]] = {}
        for row in kept_rows(self.run_dir, self.resumed_at):
            step = int(row.pop("step"))
            values = {
                name: float(value)
                for name, value in row.items()
                if value and (step, name) not in held
            }
            lost.setdefault(step, {}).update(values)
        return {step: values for step, values in sorted(lost.items()) if values}


def loggers(
    kind: str, run_dir: Path, project: str, resumed_at: int
) -> list[Logger] | Literal[False]:
    """What `--logger wandb`, `csv` or `none` means for a run that goes on with so many rows of its history."""
    if kind == "none":
        return False
    history = History(run_dir, resumed_at)
    return [history, _wandb(run_dir, project, resumed_at)] if kind == "wandb" else [history]


def _wandb(run_dir: Path, project: str, resumed_at: int) -> Logger:
    """W&B, offline where it could not log in; one run however often it is resumed."""
    try:
        import wandb
    except ModuleNotFoundError:
        raise UsageError(
            "W&B is missing: pip install wandb, or leave it out with --logger csv"
        ) from None

    offline = os.environ.get("WANDB_MODE") == "offline" or not has_wandb_login()
    folder = (run_dir / "wandb").absolute()
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault(
        "WANDB_DATA_DIR", str(folder)
    )  # by default these are in the home directory, which may
    os.environ.setdefault(
        "WANDB_CACHE_DIR", str(folder / "cache")
    )  # be read-only, and is not that of another machine
    settings: dict[str, Any] = {
        "x_transaction_log_flush_interval": 1.0
    }  # the usual 15 s are lost when a job is killed
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = PATIENCE
    file = run_dir / "wandb_id.txt"
    name = (
        file.read_text().strip()
        if file.is_file()
        else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    )
    return Continued(
        run_dir,
        resumed_at,
        name="/".join(run_dir.parts[-2:]),
        project=project,
        offline=offline,
        id=name,
        resume="allow",
        settings=wandb.Settings(**settings),
    )


def remember_wandb(run_dir: Path, trainer_loggers: Iterable[Logger]) -> None:
    """Keep the id of the W&B run, for when it is resumed."""
    for logger in trainer_loggers:
        if isinstance(logger, WandbLogger) and logger.version is not None:
            write_atomically(run_dir / "wandb_id.txt", f"{logger.version}\n".encode())
