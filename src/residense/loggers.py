"""What is logged, and that a resumed run goes on with it: metrics.csv, and one run of W&B.

Lightning's CSV logger deletes its file when it finds a directory in use; its W&B logger begins a new run.
"""

import csv
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from residense.data.cache import write_atomically
from residense.run import has_wandb_login


class History(CSVLogger):
    """CSVLogger for `run_dir/metrics.csv`.

    Args:
        run_dir: directory of the run.
        resumed_at: optimiser steps done when the run resumes; what was logged later will be logged again and is cut.
    """

    def __init__(self, run_dir: Path, resumed_at: int = 0):
        super().__init__(save_dir=run_dir, name="", version="")
        self.path, self.resumed_at = run_dir / "metrics.csv", resumed_at

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer; the first call takes over the rows that are there."""
        if self._experiment is not None:
            return super().experiment
        rows = self._rows()
        writer = super().experiment
        if rows and isinstance(writer, ExperimentWriter):  # other processes get a writer that does nothing
            writer.metrics_keys = list(rows[0])
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())
        return writer

    def _rows(self) -> list[dict[str, str]]:
        if not self.resumed_at or not self.path.is_file():
            return []
        with self.path.open(newline="") as stream:
            return [row for row in csv.DictReader(stream) if int(row["step"]) < self.resumed_at]


def loggers(kind: str, run_dir: Path, project: str, resumed_at: int) -> list[Logger] | Literal[False]:
    """What `--logger wandb`, `csv` or `none` means for a run that has done `resumed_at` optimiser steps."""
    if kind == "none":
        return False
    history = History(run_dir, resumed_at)
    return [history, _wandb(run_dir, project)] if kind == "wandb" else [history]


def _wandb(run_dir: Path, project: str) -> Logger:
    """W&B, offline where it could not log in; one run however often it is resumed."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    offline = os.environ.get("WANDB_MODE") == "offline" or not has_wandb_login()
    os.environ.setdefault("WANDB_SILENT", "true")
    file = run_dir / "wandb_id.txt"
    name = file.read_text().strip() if file.is_file() else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    logger = WandbLogger(
        name="/".join(run_dir.parts[-2:]),
        save_dir=run_dir,
        project=project,
        offline=offline,
        id=name,
        resume="allow",
        settings=wandb.Settings(x_transaction_log_flush_interval=1.0),  # the 15 s it is are lost when a job is killed
    )
    logger._wandb_init.pop("anonymous", None)  # W&B warns of it even where it is not set
    return logger


def remember_wandb(run_dir: Path, trainer_loggers: Iterable[Logger]) -> None:
    """Keep the id of the W&B run, for when it is resumed."""
    for logger in trainer_loggers:
        if not isinstance(logger, CSVLogger) and logger.version is not None:
            write_atomically(run_dir / "wandb_id.txt", f"{logger.version}\n".encode())
