"""Exponential moving average of the weights, used for validation and in checkpoints."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from residense.errors import UsageError
from residense.messages import say
from residense.nn.norms import BatchNorm
from residense.run.checkpoints import Checkpoint

BATCH_NORM = (
    "ema.decay: averaged weights run with the batch norm statistics of the trained ones: "
    "use another norm, or no average"
)


class EMA(WeightAveraging):
    """Average the weights exponentially (Polyak & Juditsky 1992).

    Validation and checkpoints use the average. Buffers are those of the last step, and until the
    first update validation uses the trained weights. With batch norm, the averaged weights run with
    the running statistics of the trained ones, which costs accuracy: a warning says so. (Averaging
    the statistics too costs more, as those of averaged weights are not the average.)

    Args:
        decay: Weight of the average in each step; null switches averaging off.
    """

    def __init__(self, decay: float | None = None):
        if decay is not None and not 0 < decay < 1:
            raise UsageError(f"ema.decay must lie between 0 and 1; got {decay}")
        super().__init__(use_buffers=False, avg_fn=get_ema_avg_fn(decay or 0.0))
        self.decay = decay
        self._swapped = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._average_model = None  # outside training the weights are those of a checkpoint
        if stage != "fit":
            return
        pl_module.configure_model()
        batch_norm = any(isinstance(m, BatchNorm | nn.BatchNorm1d) for m in pl_module.modules())
        if self.decay and batch_norm:
            say(BATCH_NORM)
        self._average_model = AveragedModel(pl_module, use_buffers=False, **self._kwargs)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._averaged():
            super().on_validation_epoch_start(trainer, pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._swapped:
            super().on_validation_epoch_end(trainer, pl_module)
            self._swapped = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:  # saved during a validation, while the two are exchanged
            Checkpoint(checkpoint).swap_averages()

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _averaged(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0
