"""`last.ckpt`: where a run can go on as if it had never stopped, at any optimiser step.

Lightning restores weights, optimiser, schedule and callbacks; this adds what each process has of its own: its random
number generators, and what the epoch has summed up so far. It saves where all of a step is done and logged: before the
next batch is cut, at the end of an epoch, once it has been validated, or, for a run that is asked to stop, within a
validation, which is then done again.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from residense import slurm
from residense.checkpoints import moved, stopped_early
from residense.data.batches import Batch
from residense.loggers import History
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
        self._saved_at = -1
        self._looked, self._longest = (
            0.0,
            0.0,
        )  # when for a signal, and seconds from once to the next
        self._exceeds_grace = False
        self._resumed: list[Any] = []  # what each process had of its own
        self._row: dict[str, Any] = {}  # what Lightning logs of an epoch right after it was saved

    # -- when -------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = trainer.global_step
        self._check_processes(trainer)
        self._log_row(trainer)
        self._watch(trainer)  # a run that resumes within an epoch does not begin it

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop_signals.deferred = False
        self._log_row(trainer)  # if nothing was left to train, training did not start
        epochs: Any = trainer.fit_loop.epoch_progress.current
        epochs.completed = epochs.processed  # which Lightning updates only when training starts

    def _log_row(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers if self._row else ():
            logger.log_metrics(**self._row)
        self._row = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if stop := self._stop_signal(
            trainer
        ):  # what there is has been saved at the end of the epoch before
            self._stop(trainer, stop)
        self._watch(trainer)

    def _watch(self, trainer: L.Trainer) -> None:
        loader: Any = (
            trainer.train_dataloader
        )  # one that does not call this is interrupted between epochs alone
        loader.before_batch = lambda: self._between_steps(trainer)

    def _between_steps(self, trainer: L.Trainer) -> None:
        step, done = (
            trainer.global_step,
            trainer.fit_loop.epoch_loop.batch_progress.current.completed,
        )
        if done % trainer.accumulate_grad_batches:
            return  # gradients of half a step would be lost
        stop = self._stop_signal(trainer)
        due = self.every_n_steps is not None and step - self._saved_at >= self.every_n_steps
        if (stop or due) and step > self._saved_at:
            self._save(trainer)
        if stop:
            self._stop(trainer, stop)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.global_step == trainer.max_steps:
            return  # Lightning would not return to a validation after the last step
        trained = trainer.fit_loop.epoch_loop.batch_progress
        whole = (
            trained.is_last_batch
            or trained.current.completed % trainer.accumulate_grad_batches == 0
        )
        if whole and (stop := self._stop_signal(trainer)):
            self._mark_validation(trainer)
            self._save(trainer)
            self._stop(trainer, stop)

    def _mark_validation(self, trainer: L.Trainer) -> None:
        """Count a batch as begun but not done, by which Lightning knows that the validation has to be done again."""
        loop = trainer.fit_loop.epoch_loop
        loop.val_loop.batch_progress.reset()
        loop.val_loop.batch_progress.increment_ready()
        loop.val_loop.batch_progress.increment_started()
        if loop.batch_progress.is_last_batch:
            trainer.datamodule.end_epoch()  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = {
            name: float(value) for name, value in trainer._logger_connector.metrics["log"].items()
        }
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        self._row = (
            {"metrics": values | {"epoch": trainer.current_epoch}, "step": step} if values else {}
        )
        self._save(trainer)
        self._row = {}

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        stop_signals.deferred = False
        launcher: Any = trainer.strategy.launcher
        if isinstance(exception, OSError) and trainer.is_global_zero and hasattr(launcher, "kill"):
            launcher.kill(signal.SIGKILL)  # the others wait for the save, and would wait long

    def _stop_signal(self, trainer: L.Trainer) -> int:
        """The signal that came to any process; all agree on it."""
        now = time.monotonic()
        self._longest, self._looked = max(self._longest, now - (self._looked or now)), now
        received = torch.tensor(stop_signals.received or 0, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        return int(received)

    def _stop(self, trainer: L.Trainer, number: int) -> None:
        """End, once what is logged is safe; a job that comes back is requeued before any of its processes ends."""
        comes_back = bool(
            trainer.strategy.broadcast(trainer.is_global_zero and slurm.comes_back(number))
        )
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
        begin = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # what the checkpoint has behind it must be on the disk
        trainer.save_checkpoint(self.path)
        self._saved_at = trainer.global_step
        self._looked = time.monotonic()
        self._exceeds_grace = self._exceeds_grace or slurm.exceeds_grace(
            self._longest + self._looked - begin
        )

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        waiting = (
            self._resumed[trainer.global_rank]["generators"] if self._resumed else None
        )  # for the first batch
        own = {"generators": waiting or generators()}
        gathered: list[Any] = [own]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
        rows = sum(logger.num_rows for logger in trainer.loggers if isinstance(logger, History))
        checkpoint |= {"processes": gathered, "rows": rows, "next_row": self._row}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._resumed, self._row = checkpoint.get("processes", []), checkpoint.get("next_row", {})
        trainer.should_stop = stopped_early(checkpoint)
        for callback in trainer.checkpoint_callbacks:
            if (
                isinstance(callback, ModelCheckpoint)
                and callback.state_key in checkpoint["callbacks"]
            ):
                states, folder = checkpoint["callbacks"], str(callback.dirpath)
                states[callback.state_key] = moved(states[callback.state_key], folder)

    def _check_processes(self, trainer: L.Trainer) -> None:
        if self._resumed and len(self._resumed) != trainer.world_size:
            say(
                f"saved by {len(self._resumed)} processes, resumed by {trainer.world_size}: "
                "the random numbers of dropout start anew"
            )
            self._resumed = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self._resumed:
            restore(self._resumed[trainer.global_rank]["generators"])
            self._resumed = []


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
