"""What `fit` does with its parts: record the run, train, test the best model, say what comes next."""

import os
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from residense.callbacks.last import Last
from residense.data.module import TextDataModule
from residense.messages import say
from residense.run.checkpoint_io import read
from residense.run.checkpoints import Checkpoint
from residense.run.directory import STAGES, RunDirectory
from residense.run.environment import git_state
from residense.run.loggers import History, remember_wandb
from residense.run.preemption import Stopped, stop_signals
from residense.settings import configs, trust
from residense.tasks.base import Task


class Fit:
    """A run of `fit`.

    Args:
        trainer: makes the steps.
        model: task that is trained.
        data: data module.
        run: directory of the run.
        options: options of the command, as parsed.
        resumed: checkpoint that the run resumes from.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        model: Task,
        data: TextDataModule,
        run: RunDirectory,
        options: dict[str, Any],
        resumed: Checkpoint | None,
    ):
        self.trainer = trainer
        self.model = model
        self.data = data
        self.run = run
        self.options = options
        self.saver = trainer.checkpoint_callback
        self.was_complete = resumed is not None and self._is_complete(resumed)

    def __call__(self, config: str, arguments: list[str]) -> None:
        """Train, and test the best model; a run that is complete only says so.

        Args:
            config: all options, as YAML.
            arguments: words of the command line.
        """
        if self.was_complete:
            self._claim()
            self._finish()
            return
        self._start(config, arguments)
        self.trainer.fit(self.model, datamodule=self.data, ckpt_path=self.options["ckpt_path"])
        if stop_signals.received:
            raise Stopped(stop_signals.received)  # the last epoch is saved, its test can follow
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._test()
        self._finish()

    def _is_complete(self, resumed: Checkpoint) -> bool:
        """Return whether the run was trained and tested; load which model is the best."""
        if not isinstance(self.saver, ModelCheckpoint) or not resumed.is_trained(self.trainer):
            return False
        state = resumed.relocate(self.saver)
        if state is None:
            return False
        self.saver.load_state_dict(state)
        self.data.prepare_data()
        self.data.vocabulary = self.model.vocabulary
        self.data.setup("fit")
        return not self.options["test_after_fit"] or self.run.results(self._stage()).exists()

    def _stage(self) -> str:
        """How the best model is evaluated after training."""
        return "test" if "test" in self.data.splits else "validate"

    def _claim(self) -> None:
        if self.trainer.is_global_zero:
            self.run.claim()

    def _start(self, config: str, arguments: list[str]) -> None:
        """Claim and record the run."""
        self.data.prepare_data()  # errors in the data are found before anything is written
        self.run.path.mkdir(parents=True, exist_ok=True)
        self._claim()
        if self.trainer.is_global_zero:
            for stage in STAGES:  # the best model may become another one
                self.run.results(stage).unlink(missing_ok=True)
            self.run.record(config, arguments)
            remember_wandb(self.run, self.trainer.loggers)
        for logger in self.trainer.loggers:
            if not isinstance(logger, History):
                git = git_state().splitlines()[:2]
                logger.log_hyperparams({**configs.plain(self.options), "git": git})
            if getattr(logger, "_offline", None) is True:
                reason = getattr(logger, "offline_reason", "")
                offline = f"W&B is offline ({reason})" if reason else "W&B is offline"
                say(f"{offline}; `wandb sync {self.run.wandb}/offline-run-*` uploads the run later")
        say(f"run directory: {self.run}")
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        stop_signals.deferred = any(isinstance(callback, Last) for callback in callbacks)

    def _best(self) -> ModelCheckpoint | None:
        """The callback that keeps the best model, if one has been saved."""
        saver = self.saver
        return saver if isinstance(saver, ModelCheckpoint) and saver.best_model_path else None

    def _test(self) -> None:
        best = self._best()
        if best is None or not self.options["test_after_fit"]:
            return
        # sharding would look for the state of the optimizers, which a checkpoint may lack
        self.trainer.strategy.optimizers = []
        evaluate = getattr(self.trainer, self._stage())
        path = best.best_model_path
        evaluate(self.model, datamodule=self.data, ckpt_path=path, verbose=False)

    @rank_zero_only
    def _finish(self) -> None:
        """Close W&B and the run, and print the best score and the next command."""
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and logger._experiment is not None:
                logger.experiment.finish()
        self.run.release()
        print(f"run directory: {self.run}")
        best = self._best()
        if best is None or best.best_model_score is None:
            return
        path = os.path.relpath(best.best_model_path)
        print(f"best {best.monitor} {best.best_model_score:.4f} in epoch {read(path).epoch + 1}")
        own = trust.own_modules(self.options)
        flag = f" --trust {','.join(sorted(own))}" if own else ""
        print(f'next: python main.py predict --ckpt_path {path}{flag} --data.text "..."')
