"""`last.ckpt`: where a run can go on as if it had never stopped, at any optimiser step.

Lightning restores weights, optimiser, schedule and callbacks; this adds the random number generators of each process.
It saves where all of a step is done and logged: before the next batch is cut, or at the end of an epoch, once it has
been validated.
"""

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger

from residense import slurm
from residense.messages import say
from residense.signals import Stopped, stop_signals


class Last(Checkpoint):
    """Writes `last.ckpt` at the end of each epoch, every so many steps, and when a signal asks the run to stop.

    Args:
        folder: where it is written.
        every_n_steps: optimiser steps from one to the next within an epoch; null: only at its end.
    """

    def __init__(self, folder: Path, every_n_steps: int | None = None):
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"save_every_n_steps must be at least 1; got {every_n_steps}")
        self.path, self.every_n_steps = folder / "last.ckpt", every_n_steps
        self._saved_at, self._generators = -1, None

    # -- when -------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop_signals.install()  # Lightning's own handlers talk to other processes in the middle of anything
        stop_signals.deferred = True
        self._saved_at = trainer.global_step

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if stop := self._stop_signal(trainer):  # what there is has been saved at the end of the epoch before
            self._stop(trainer, stop)
        loader: Any = trainer.train_dataloader  # one that does not call this is interrupted between epochs alone
        loader.before_batch = lambda: self._between_steps(trainer)

    def _between_steps(self, trainer: L.Trainer) -> None:
        step, done = trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if done % trainer.accumulate_grad_batches:
            return  # gradients of half a step would be lost
        stop = self._stop_signal(trainer)
        due = self.every_n_steps is not None and step - self._saved_at >= self.every_n_steps
        if (stop or due) and step > self._saved_at:
            self._save(trainer)
        if stop:
            self._stop(trainer, stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop_signals.deferred = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        stop_signals.deferred = False

    def _stop_signal(self, trainer: L.Trainer) -> int:
        """The signal that came to any process; all agree on it."""
        received = torch.tensor(stop_signals.received or 0, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        return int(received)

    def _stop(self, trainer: L.Trainer, number: int) -> None:
        """End, once what is logged is safe; a job that comes back is requeued before any of its processes ends."""
        comes_back = bool(trainer.strategy.broadcast(trainer.is_global_zero and slurm.comes_back(number)))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                if comes_back:
                    logger.experiment.mark_preempting()
                logger.experiment.finish(exit_code=0 if comes_back else 1)
        if comes_back and trainer.is_global_zero:
            slurm.requeue()
        trainer.strategy.barrier()
        if comes_back:
            slurm.await_end(number)
        raise Stopped(number)

    # -- what -------------------------------------------------------------------------------------------------------

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # what the checkpoint has behind it must be on the disk
        trainer.save_checkpoint(self.path)
        self._saved_at = trainer.global_step

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        own = generators()
        gathered: list[Any] = [own]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
        checkpoint["generators"] = gathered

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._generators = checkpoint.get("generators")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._generators is None:
            return
        if len(self._generators) == trainer.world_size:
            restore(self._generators[trainer.global_rank])
        else:
            say(f"saved by {len(self._generators)} processes, resumed by {trainer.world_size}: dropout begins anew")
        self._generators = None


def generators() -> dict[str, Any]:
    """The states of the random number generators of this process, as plain numbers and tensors."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), place, has_gauss, gauss),  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def restore(states: dict[str, Any]) -> None:
    """Put the generators back into the states of `generators`."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
