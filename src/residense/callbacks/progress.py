"""Progress: one line an epoch, and on a terminal a bar below it; both with tokens per second.

Lightning's Rich bar draws from a thread of its own, loses lines printed above it and leaves its last state behind.
"""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from residense.data.batches import Batch

REDRAWN_EVERY = 0.1  # seconds


class Throughput:
    """Counts the tokens of all processes and the seconds of an epoch's training, validation left out."""

    def __init__(self) -> None:
        self.tokens, self.seconds, self._since = 0, 0.0, 0.0

    def reset(self) -> None:
        """Begin an epoch."""
        self.tokens, self.seconds = 0, 0.0

    def start(self) -> None:
        """A training batch begins."""
        self._since = time.perf_counter()

    def stop(self, batch: Batch) -> None:
        """A training batch ended."""
        self.seconds += time.perf_counter() - self._since
        self.tokens += int(batch["num_tokens"])

    @property
    def rate(self) -> int:
        """Tokens per second."""
        return round(self.tokens / self.seconds) if self.seconds else 0


class Lines(ProgressBar):
    """One line an epoch, for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.throughput = Throughput()

    def disable(self) -> None:
        """Only the main process prints in any case."""

    def enable(self) -> None:
        """Only the main process prints in any case."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.throughput.reset()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.throughput.start()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.throughput.stop(batch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            pl_module.log("train/tokens_per_s", float(self.throughput.rate), rank_zero_only=True)
            print(self.summary(trainer, pl_module), flush=True)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics | {"tokens/s": f"{self.throughput.rate:,}"}

    def summary(self, trainer: L.Trainer, pl_module: L.LightningModule) -> str:
        """The epoch in a line."""
        metrics = self.get_metrics(trainer, pl_module).items()
        shown = (
            f"{name} {value if isinstance(value, str) else f'{value:.4f}'}"
            for name, value in metrics
        )
        return f"{_epoch(trainer)}  {'  '.join(shown)}"


class Bar(Lines):
    """The same lines on a terminal, and a bar that is erased before each of them."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._name, self._drawn_at = "", 0.0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        rate = f"{self.throughput.rate:,} tokens/s"
        self._draw(_epoch(trainer), batch_idx + 1, trainer.num_training_batches, rate)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._draw("validation", batch_idx + 1, trainer.num_val_batches[dataloader_idx])

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._draw("test", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._erase()
        super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._erase()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._erase()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._erase()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._erase()

    @rank_zero_only
    def _draw(self, name: str, done: int, total: float, note: str = "") -> None:
        if self._bar is None or name != self._name:
            self._erase()
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(
                *columns, TextColumn("{task.fields[note]}"), auto_refresh=False, transient=True
            )
            self._bar.add_task(name, total=None if total == float("inf") else total, note=note)
            self._bar.start()
            self._name = name
        due = time.monotonic() - self._drawn_at >= REDRAWN_EVERY
        self._bar.update(self._bar.task_ids[0], completed=done, note=note, refresh=due)
        self._drawn_at = time.monotonic() if due else self._drawn_at

    def _erase(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _epoch(trainer: L.Trainer) -> str:
    last = trainer.max_epochs or -1
    return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last > 0 else "")
