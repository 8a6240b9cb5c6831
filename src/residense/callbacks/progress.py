"""Progress of a run: a line for each epoch and, on a terminal, a bar below the lines."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.types import STEP_OUTPUT

from residense.data.batches import Batch

REFRESH_RATE = 10  # batches; reading the loss waits for the device


class EpochProgress(TQDMProgressBar):
    """Prints and logs the scores of each epoch and the tokens per second of its training.

    The tokens are those of all processes; the time excludes validation and loading of batches.
    """

    def __init__(self) -> None:
        super().__init__(REFRESH_RATE if sys.stdout.isatty() else 0)
        self._tokens = 0
        self._seconds = 0.0
        self._started_at = 0.0

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics | {"tokens/s": f"{self._rate():,}"}

    def _rate(self) -> int:
        return round(self._tokens / self._seconds) if self._seconds else 0

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(_epoch(trainer))
        self._tokens = 0
        self._seconds = 0.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._started_at = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._seconds += time.perf_counter() - self._started_at
        self._tokens += int(batch["num_tokens"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        pl_module.log("train/tokens_per_s", float(self._rate()), rank_zero_only=True)
        line = _epoch(trainer)
        for name, value in self.get_metrics(trainer, pl_module).items():
            line += f"  {name} {value if isinstance(value, str) else f'{value:.4f}'}"
        self.train_progress_bar.clear()
        print(line, flush=True)

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        for bar in (self._train_progress_bar, self._val_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()

    # -- bars are erased when they are done -------------------------------------------------------

    def init_train_tqdm(self) -> Tqdm:
        return _erased(super().init_train_tqdm())

    def init_validation_tqdm(self) -> Tqdm:
        return _erased(super().init_validation_tqdm())

    def init_test_tqdm(self) -> Tqdm:
        return _erased(super().init_test_tqdm())


def _erased(bar: Tqdm) -> Tqdm:
    bar.leave = False
    return bar


def _epoch(trainer: L.Trainer) -> str:
    last = trainer.max_epochs or -1
    return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last > 0 else "")
