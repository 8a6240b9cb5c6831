"""`last.ckpt`: from it a run resumes at any optimizer step as if it had never stopped.

Lightning restores weights, optimizer, schedule and callbacks; this adds the random number generators
of each process. A checkpoint is saved where a step is done and logged: before the next batch is
made, at the end of an epoch after its validation, or, after a signal, during a validation, which is
then repeated.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from residense.data.batches import Batch
from residense.errors import UsageError
from residense.messages import say
from residense.run import checkpoints, preemption
from residense.run.loggers import History
from residense.run.preemption import Stopped, stop_signals


class Last(Checkpoint):
    """Saves `last.ckpt` after each epoch, every few steps, and when a signal asks the run to stop.

    Args:
        path: Where it is saved.
        every_n_steps: Optimizer steps between saves within an epoch; None saves only at its end.
    """

    def __init__(self, path: Path, every_n_steps: int | None = None):
        if every_n_steps is not None and every_n_steps < 1:
            raise UsageError(f"save_every_n_steps must be at least 1; got {every_n_steps}")
        self.path = path
        self.every_n_steps = every_n_steps
        self._saved_at = -1  # optimizer step
        self._checked_at = 0.0  # when the signals were checked last
        self._longest = 0.0  # seconds between two checks
        self._exceeds_grace = False
        self._resumed: list[Any] = []  # the generators of each process, until the first batch
        self._row: dict[str, Any] = {}  # what Lightning logs right after the save of an epoch

    # -- when to save -----------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = trainer.global_step
        self._check_processes(trainer)
        self._log_row(trainer)
        self._watch(trainer)  # a run that resumes within an epoch does not start it

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
        if stop := self._stop_signal(trainer):  # the end of the last epoch was saved
            self._stop(trainer, stop)
        self._watch(trainer)

    def _watch(self, trainer: L.Trainer) -> None:
        loader: Any = trainer.train_dataloader  # one without this hook is stopped between epochs
        loader.before_batch = lambda: self._between_steps(trainer)

    def _between_steps(self, trainer: L.Trainer) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if batches % trainer.accumulate_grad_batches:
            return  # the gradients of half a step would be lost
        stop = self._stop_signal(trainer)
        steps = trainer.global_step - self._saved_at
        due = self.every_n_steps is not None and steps >= self.every_n_steps
        if (stop or due) and steps > 0:
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
            return  # Lightning would not repeat a validation after the last step
        trained = trainer.fit_loop.epoch_loop.batch_progress
        half = trained.current.completed % trainer.accumulate_grad_batches
        if half and not trained.is_last_batch:
            return
        if stop := self._stop_signal(trainer):
            self._mark_validation(trainer)
            self._save(trainer)
            self._stop(trainer, stop)

    def _mark_validation(self, trainer: L.Trainer) -> None:
        """Mark a batch as started but not done, so that Lightning repeats the validation."""
        loop = trainer.fit_loop.epoch_loop
        loop.val_loop.batch_progress.reset()
        loop.val_loop.batch_progress.increment_ready()
        loop.val_loop.batch_progress.increment_started()
        if loop.batch_progress.is_last_batch:
            trainer.datamodule.end_epoch()  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logged = trainer._logger_connector.metrics["log"]
        values = {name: float(value) for name, value in logged.items()}
        if values:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
            self._row = {"metrics": values | {"epoch": trainer.current_epoch}, "step": step}
        self._save(trainer)
        self._row = {}

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        stop_signals.deferred = False
        launcher: Any = trainer.strategy.launcher
        if isinstance(exception, OSError) and trainer.is_global_zero and hasattr(launcher, "kill"):
            launcher.kill(signal.SIGKILL)  # the others would wait long for the save

    def _stop_signal(self, trainer: L.Trainer) -> int:
        """Return the signal that any process received; all processes agree on it."""
        now = time.monotonic()
        self._longest = max(self._longest, now - (self._checked_at or now))
        self._checked_at = now
        received = torch.tensor(stop_signals.received or 0, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        return int(received)

    def _stop(self, trainer: L.Trainer, number: int) -> NoReturn:
        """End the run; requeue its job, if it comes back, before any of its processes ends."""
        first = trainer.is_global_zero
        comes_back = trainer.strategy.broadcast(first and preemption.comes_back(number))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and first:
                if comes_back:
                    logger.experiment.mark_preempting()
                logger.experiment.finish(exit_code=0 if comes_back else 1)
        if comes_back and first:
            preemption.requeue()
        trainer.strategy.barrier()
        if comes_back:
            preemption.await_end(number)
        raise Stopped(number)

    # -- what to save -----------------------------------------------------------------------------

    def _save(self, trainer: L.Trainer) -> None:
        started = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # the checkpoint counts the rows on the disk
        trainer.save_checkpoint(self.path)
        self._saved_at = trainer.global_step
        self._checked_at = time.monotonic()
        if not self._exceeds_grace:
            seconds = self._longest + self._checked_at - started
            self._exceeds_grace = preemption.exceeds_grace(seconds)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = self._resumed[trainer.global_rank] if self._resumed else generators()
        gathered: list[Any] = [own]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
        rows = sum(logger.num_rows for logger in trainer.loggers if isinstance(logger, History))
        stored = checkpoints.Checkpoint(checkpoint)
        stored.add_progress(checkpoints.Progress(gathered, rows, self._row))

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        stored = checkpoints.Checkpoint(checkpoint)
        self._resumed = stored.progress.generators
        self._row = stored.progress.next_row
        trainer.should_stop = stored.stopped_early
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                stored.relocate(callback)

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
            restore(self._resumed[trainer.global_rank])
            self._resumed = []


def generators() -> dict[str, Any]:
    """Return the states of the random number generators, as plain numbers and tensors."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), place, has_gauss, gauss),  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def restore(states: dict[str, Any]) -> None:
    """Set the generators to the states that `generators` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
