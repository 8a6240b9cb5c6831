"""The trainer of a command: its callbacks, loggers and plugins."""

from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import ModelParallelStrategy

from residense.callbacks.last import Last
from residense.callbacks.predictions import Predictions
from residense.callbacks.progress import EpochProgress
from residense.callbacks.report import Report
from residense.errors import UsageError
from residense.run import preemption
from residense.run.checkpoint_io import AtomicIO
from residense.run.checkpoints import Checkpoint
from residense.run.directory import RunDirectory
from residense.run.loggers import loggers

DEFAULTS = {
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # the data module distributes the batches
    "enable_autolog_hparams": False,
    "enable_model_summary": False,
}


def make_trainer(
    command: str, options: Namespace, run: RunDirectory | None, resumed: Checkpoint | None
) -> L.Trainer:
    """Make the trainer of a command.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        options: options of the command, with their classes instantiated.
        run: directory of the run, if there is one.
        resumed: checkpoint that a run resumes from.

    Raises:
        UsageError: the options of the trainer cannot be used.
    """
    config = {**options.trainer}
    fits = command == "fit"
    if isinstance(config["strategy"], ModelParallelStrategy):
        _check_sharding(options, fits, resumed)
    config["enable_checkpointing"] = fits and config["enable_checkpointing"] is not False
    shows_progress = command != "predict" and config["enable_progress_bar"] is not False
    config["enable_progress_bar"] = shows_progress
    config["callbacks"] = _as_list(config["callbacks"])
    if shows_progress:
        config["callbacks"].append(EpochProgress())
    config["callbacks"] += [Predictions(_output(command, options, run)), Report(run)]
    if fits and run is not None:
        config["callbacks"] += _fit_callbacks(options, run, config["enable_checkpointing"])
    if run is not None:
        config["default_root_dir"] = run.path
    if config["logger"] in (None, True):
        rows = resumed.progress.rows if resumed else 0
        own = loggers(options.logger, run, options.project, rows) if fits and run else False
        config["logger"] = own
    config["plugins"] = [*_as_list(config["plugins"]), AtomicIO()]
    if SLURMEnvironment.detect():
        config |= preemption.layout(config["num_nodes"], config["devices"])
        config["plugins"].append(SLURMEnvironment(auto_requeue=False))  # `Last` does that
    try:
        trainer = L.Trainer(**config)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UsageError(f"trainer: {str(error).splitlines()[0]}") from error
    # Lightning's own handlers wait for the other processes, wherever these are
    trainer._signal_connector.register_signal_handlers = preemption.stop_signals.install
    return trainer


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _output(command: str, options: Any, run: RunDirectory | None) -> Path | None:
    """The file of the predictions."""
    if options.output:
        return Path(options.output)
    return run.predictions if run is not None and command != "predict" else None


def _fit_callbacks(options: Any, run: RunDirectory, saves: bool) -> list[L.Callback]:
    averaging = [options.ema] if options.ema.decay else []
    if not saves:
        return [*averaging, options.early_stopping]
    options.checkpoint.dirpath = str(run.checkpoints.absolute())
    last = Last(run.last.absolute(), options.save_every_n_steps)
    return [*averaging, options.early_stopping, options.checkpoint, last]


def _check_sharding(options: Any, fits: bool, resumed: Checkpoint | None) -> None:
    """Refuse what sharded weights cannot do, before anything is written."""
    if options.trainer.strategy._save_distributed_checkpoint:
        raise UsageError(
            "a checkpoint is one file: --trainer.strategy.save_distributed_checkpoint false"
        )
    if fits and options.ema.decay:
        raise UsageError(
            "sharded weights have no average: leave --ema.decay out, or use --trainer.strategy ddp"
        )
    if fits and resumed is not None and not resumed.is_sharded:
        raise UsageError(
            f"{options.ckpt_path} is of a run without sharding: resume with its own "
            "--trainer.strategy, or start a new run with --init_from"
        )
