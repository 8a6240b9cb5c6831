"""metrics.csv that a resumed run goes on with: Lightning's logger deletes it when it finds a directory in use."""

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from residense.data.cache import write_atomically


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
