"""Loggers of a run that can be resumed: metrics.csv, and one W&B run or TensorBoard folder.

Lightning's CSV logger deletes its file when the directory is used again, and its W&B logger starts
a new run. metrics.csv is exact; the others may have the rows since the last checkpoint twice.
"""

import csv
import io
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from residense.atomic import write_atomically
from residense.errors import UsageError
from residense.run.directory import RunDirectory

INIT_TIMEOUT = 8.0  # seconds in which the W&B server has to answer when a run starts


def loggers(kind: str, run: RunDirectory, project: str, resumed_at: int) -> list[Logger]:
    """Make the loggers that `--logger` names.

    Args:
        kind: `wandb`, `tensorboard`, `csv` or `none`; the first two also write metrics.csv.
        run: Directory of the run.
        project: W&B project.
        resumed_at: Number of rows of metrics.csv that a resumed run keeps.

    Raises:
        UsageError: The logger is not installed, or has no valid login.
    """
    if kind == "none":
        return []
    history = History(run.metrics, resumed_at)
    if kind == "csv":
        return [history]
    try:
        other = _wandb(run, project) if kind == "wandb" else _tensorboard(run)
    except ModuleNotFoundError:
        raise UsageError(
            f"{kind} is not installed: pip install {kind}, or use --logger csv"
        ) from None
    return [history, other]


def _tensorboard(run: RunDirectory) -> Logger:
    return TensorBoardLogger(run.tensorboard, name="", version="", default_hp_metric=False)


class History(Logger):
    """`metrics.csv`: a row for each call, a column for each metric.

    Args:
        path: Path of the file.
        resumed_at: Number of rows in the checkpoint that is resumed; later rows are removed.

    Attributes:
        num_rows: Number of rows logged so far.
    """

    def __init__(self, path: Path, resumed_at: int = 0):
        super().__init__()
        self.path = path
        self.num_rows = len(_read(self.path, resumed_at))
        self._columns: list[str] = []  # of the file, once this process has written it

    @property
    def name(self) -> str:
        """Nothing: there is one per run."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: there is one per run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory, where Lightning puts the files of profilers."""
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row; rewrite the file if it has new columns.

        Raises:
            OSError: The disk is full.
        """
        row = {name: str(value) for name, value in metrics.items()}
        row["step"] = str(step)
        if row.keys() <= set(self._columns):
            self._append(_lines(self._columns, [row]))
        else:
            rows = [*_read(self.path, self.num_rows), row]
            columns = sorted(set().union(*rows))
            header = ",".join(columns) + "\n"
            write_atomically(self.path, (header + _lines(columns, rows)).encode())
            self._columns = columns
        self.num_rows += 1

    def _append(self, lines: str) -> None:
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as stream:
                stream.write(lines)
        except OSError as error:
            os.truncate(self.path, size)  # half of a row is none
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _lines(columns: list[str], rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(path: Path, number: int) -> list[dict[str, str]]:
    """Read the first rows; an unfinished last line is not a row."""
    if not number or not path.is_file():
        return []
    with path.open(newline="") as stream:
        lines = (line for line in stream if line.endswith("\n"))
        return [row for row, _ in zip(csv.DictReader(lines), range(number), strict=False)]


class Wandb(WandbLogger):
    """WandbLogger that logs offline if it cannot reach the W&B server.

    Args:
        run_dir: Directory of the run.
        options: Arguments of `WandbLogger`.

    Attributes:
        offline_reason: Why the run is logged offline despite an API key; empty if it is not.
    """

    def __init__(self, run_dir: Path, **options: Any):
        # an absolute path: the W&B process may have another working directory
        super().__init__(save_dir=run_dir.absolute(), **options)
        self.offline_reason = ""
        self._wandb_init.pop("anonymous", None)  # deprecated: W&B warns even about None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which the first call starts."""
        import wandb
        from wandb.errors import AuthenticationError, CommError, Error

        try:
            return super().experiment
        except Error as error:
            unreachable = isinstance(error, CommError) and not isinstance(
                error, AuthenticationError
            )
            if self._offline or not unreachable:
                raise _wandb_error(error) from None
            self.offline_reason = str(error).splitlines()[-1]
        wandb.teardown()  # its process still holds the id of the run
        self._offline = True
        self._wandb_init["mode"] = "offline"
        return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run after a failure, so that this process can start another one."""
        super().finalize(status)
        if status == "failed" and self._experiment is not None:
            self._experiment.finish(exit_code=1)


def _wandb_error(error: Exception) -> UsageError:
    reason = str(error).splitlines()[0]
    return UsageError(f"W&B: {reason}; use WANDB_MODE=offline or --logger csv")


def _wandb(run: RunDirectory, project: str) -> Logger:
    """Make the W&B logger, offline without an API key; a resumed run keeps its id."""
    import wandb
    from wandb.errors import Error

    folder = run.wandb.absolute()
    os.environ.setdefault("WANDB_SILENT", "true")
    # by default these are in the home directory, which may be read-only
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
    timeout = float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT))
    # a kill loses the last second
    settings = wandb.Settings(init_timeout=timeout, x_transaction_log_flush_interval=1.0)
    try:
        has_login = wandb.login(prompt=False, verify=False)
    except Error as error:
        raise _wandb_error(error) from None
    offline = not has_login and os.environ.get("WANDB_MODE") != "disabled"
    return Wandb(
        run.path,
        name="/".join(run.path.parts[-2:]),
        project=project,
        offline=offline,
        mode="offline" if offline else None,
        id=_wandb_id(run.wandb_id),
        resume="allow",
        settings=settings,
    )


def _wandb_id(file: Path) -> str:
    if file.is_file():
        return file.read_text().strip()
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def remember_wandb(run: RunDirectory, trainer_loggers: Iterable[Logger]) -> None:
    """Save the id of the W&B run, for when it is resumed."""
    for logger in trainer_loggers:
        if isinstance(logger, WandbLogger) and logger.version is not None:
            write_atomically(run.wandb_id, f"{logger.version}\n".encode())
