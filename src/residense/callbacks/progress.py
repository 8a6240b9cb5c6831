"""Progress: a Rich bar on a terminal, one plain line an epoch elsewhere; both with tokens per second."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import STEP_OUTPUT

from residense.data.batches import Batch


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


class _Counting(ProgressBar):
    """Hooks that keep a `Throughput`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.throughput = Throughput()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.throughput.reset()
        super().on_train_epoch_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.throughput.start()
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        self.throughput.stop(batch)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        pl_module.log("train/tokens_per_s", float(self.throughput.rate), rank_zero_only=True)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics | {"tokens/s": f"{self.throughput.rate:,}"}

    def summary(self, trainer: L.Trainer, pl_module: L.LightningModule) -> str:
        """The epoch in a line."""
        shown = (
            f"{k} {v if isinstance(v, str) else f'{v:.4f}'}" for k, v in self.get_metrics(trainer, pl_module).items()
        )
        epochs = "" if (trainer.max_epochs or -1) < 0 else f"/{trainer.max_epochs}"
        return f"epoch {trainer.current_epoch + 1}{epochs}  {'  '.join(shown)}"


class Bar(_Counting, RichProgressBar):
    """Rich progress bar, and a line for each epoch above it."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.progress is not None:
            self.progress.console.print(self.summary(trainer, pl_module), highlight=False, markup=False)


class Lines(_Counting):
    """One line an epoch, for logs and pipes."""

    def disable(self) -> None:
        """Nothing is redrawn, so nothing has to be kept back."""

    def enable(self) -> None:
        """Nothing is redrawn, so nothing has to be kept back."""

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        print(self.summary(trainer, pl_module), flush=True)
