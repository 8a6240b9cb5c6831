"""The command `fit`, from the run directory to the test of the best model."""

import os
from collections.abc import Sequence

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from residense.callbacks.last import Last
from residense.data.module import TextDataModule
from residense.errors import UsageError
from residense.messages import program, say
from residense.run.checkpoint_io import read
from residense.run.checkpoints import Checkpoint
from residense.run.directory import STAGES, RunDirectory
from residense.run.environment import git_state
from residense.run.loggers import History, remember_wandb
from residense.run.preemption import Stopped, stop_signals
from residense.run.trainer import check_output, make_trainer
from residense.settings import configs, trust
from residense.settings.options import Options
from residense.tasks.base import Task


def fit(words: Sequence[str]) -> None:
    """Train a model, and test the best one; only report a run that is complete.

    Args:
        words: Command line behind `fit`.

    Raises:
        UsageError: The run cannot start with these options; nothing has been written.
        Stopped: A signal ended the run, which is saved.
    """
    options = Options("fit", words)
    given = options.config
    check_output(given.output)
    resumed = read(given.ckpt_path) if given.ckpt_path else None
    start = read(given.init_from) if given.init_from else None
    check_start(options, resumed)
    run = RunDirectory.create(given.name, given.run_dir)

    trainer = make_trainer(options, run, resumed)
    data = options.make_data()
    if resumed:
        data.vocabulary = resumed.vocabulary
    elif start:
        data.vocabulary = data.vocabulary.with_words_of(start.vocabulary)
    model = options.make_model(data.vocabulary)
    check_monitors(options, model)
    if not resumed:
        initialize(model, data, start)
    data.setup("fit")

    stage = "test" if "test" in data.splits else "validate"
    tested = run.results(stage).exists() or not given.test_after_fit
    complete = resumed is not None and tested and is_trained(trainer, resumed)
    resumed = start = None  # open files would keep their space on the disk
    if trainer.is_global_zero:
        run.claim()
    if not complete:
        record(options, run, trainer)
        trainer.fit(model, datamodule=data, ckpt_path=given.ckpt_path)
        if stop_signals.received:
            raise Stopped(stop_signals.received)  # the last epoch is saved, its test can follow
        if trainer.interrupted or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if given.test_after_fit:
            test_best(trainer, model, data, stage)
    finish(options, run, trainer)


def check_start(options: Options, resumed: Checkpoint | None) -> None:
    """Refuse to change the model or the data of a resumed run, and to overwrite a run."""
    given = options.config
    if given.checkpoint.dirpath:
        raise UsageError(
            "checkpoints are kept in the run directory: use --run_dir, not --checkpoint.dirpath"
        )
    if resumed and given.init_from:
        raise UsageError(
            "--ckpt_path resumes a run, --init_from starts a new one: give one of them"
        )
    if resumed:
        settings = resumed.settings
        now = {name: given[name].as_dict() for name in settings}
        if changed := sorted(configs.differences(settings, now)):
            raise UsageError(
                f"a resumed run keeps its model and data, but {', '.join(changed[:3])} would "
                "change; leave that out, or start a new run with --init_from"
                f"{resumed.saved_by()}"
            )
    elif (
        given.run_dir
        and "LOCAL_RANK" not in os.environ
        and RunDirectory(given.run_dir).is_started()
    ):
        raise UsageError(
            f"{given.run_dir} contains a run: resume it with --ckpt_path last, or name another"
        )


def check_monitors(options: Options, model: Task) -> None:
    """Refuse to monitor what the model does not log, or in the wrong direction."""
    for name in ("checkpoint", "early_stopping"):
        given = options.config[name]
        scores = model.scores
        if given.monitor not in scores:
            raise UsageError(
                f"{name}.monitor: {given.monitor} is not logged; there are: {', '.join(scores)}"
            )
        mode = scores[given.monitor]
        if given.mode != mode:
            raise UsageError(
                f"{name}.mode: {given.monitor} is best when {mode}imal: --{name}.mode {mode}"
            )


def initialize(model: Task, data: TextDataModule, start: Checkpoint | None) -> None:
    """Copy pretrained word vectors, and the weights of a checkpoint that fit, into a new model.

    Raises:
        UsageError: No weight of the checkpoint fits.
    """
    if data.vector_matrix is not None:
        model.embeddings.load_vectors(torch.from_numpy(data.vector_matrix))
    if start is None:
        return
    own = model.state_dict()
    fitting = {
        name: weight
        for name, weight in start.weights.items()
        if name in own and weight.shape == own[name].shape
    }
    if not fitting:
        raise UsageError(
            "--init_from: no weight of the checkpoint fits this model; give it the same encoder"
        )
    model.load_state_dict(fitting, strict=False)
    new = ", ".join(sorted(own.keys() - fitting.keys())) or "none"
    say(f"{len(fitting)} of {len(own)} weights loaded; these start from scratch: {new}")


def is_trained(trainer: L.Trainer, resumed: Checkpoint) -> bool:
    """Return whether nothing is left to train; then, tell the trainer which model is the best."""
    saver = trainer.checkpoint_callback
    if not isinstance(saver, ModelCheckpoint) or not resumed.is_trained(trainer):
        return False
    state = resumed.relocate(saver)
    if state is None:
        return False
    saver.load_state_dict(state)
    return True


def record(options: Options, run: RunDirectory, trainer: L.Trainer) -> None:
    """Write down what the run is made of, in its directory and in its loggers."""
    if trainer.is_global_zero:
        for stage in STAGES:  # the best model may become another one
            run.results(stage).unlink(missing_ok=True)
        run.record(options.as_yaml(), ["fit", *options.words])
        remember_wandb(run, trainer.loggers)
    for logger in trainer.loggers:
        if not isinstance(logger, History):
            git = git_state().splitlines()[:2]
            logger.log_hyperparams({**configs.plain(options.config.as_dict()), "git": git})
        if getattr(logger, "_offline", None) is True:
            reason = getattr(logger, "offline_reason", "")
            offline = f"W&B is offline ({reason})" if reason else "W&B is offline"
            say(f"{offline}; `wandb sync {run.wandb}/offline-run-*` uploads the run later")
    say(f"run directory: {run}")
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    stop_signals.deferred = any(isinstance(callback, Last) for callback in callbacks)


def test_best(trainer: L.Trainer, model: Task, data: TextDataModule, stage: str) -> None:
    """Test or validate the best checkpoint."""
    best = best_of(trainer)
    if best is None:
        return
    # sharding would look for the state of the optimizers, which a checkpoint may lack
    trainer.strategy.optimizers = []
    evaluate = getattr(trainer, stage)
    evaluate(model, datamodule=data, ckpt_path=best.best_model_path, verbose=False)


def best_of(trainer: L.Trainer) -> ModelCheckpoint | None:
    """Return the callback that keeps the best model, if it has saved one."""
    saver = trainer.checkpoint_callback
    return saver if isinstance(saver, ModelCheckpoint) and saver.best_model_path else None


@rank_zero_only
def finish(options: Options, run: RunDirectory, trainer: L.Trainer) -> None:
    """Close W&B and the run; print the best score and the next command."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger.experiment.finish()
    run.release()
    print(f"run directory: {run}")
    best = best_of(trainer)
    if best is None or best.best_model_score is None:
        return
    path = os.path.relpath(best.best_model_path)
    print(f"best {best.monitor} {best.best_model_score:.4f} in epoch {read(path).epoch + 1}")
    own = trust.own_modules(options.config.as_dict())
    flag = f" --trust {','.join(sorted(own))}" if own else ""
    print(f'next: {program()} predict --ckpt_path {path}{flag} --data.text "..."')
