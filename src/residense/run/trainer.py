"""The trainer of a command: its callbacks, loggers and plugins."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import ModelParallelStrategy

from residense.callbacks.last import Last
from residense.callbacks.progress import EpochProgress
from residense.callbacks.report import Report
from residense.errors import UsageError
from residense.run import preemption
from residense.run.checkpoint_io import AtomicIO
from residense.run.checkpoints import Checkpoint
from residense.run.directory import RunDirectory
from residense.run.loggers import loggers
from residense.settings.options import Options


def make_trainer(
    options: Options,
    run: RunDirectory | None,
    resumed: Checkpoint | None = None,
) -> L.Trainer:
    """Make the trainer of a command.

    Args:
        options: Options of the command.
        run: Directory of the run, if there is one.
        resumed: Checkpoint that a run resumes from.

    Raises:
        UsageError: The options cannot be used.
    """
    given = options.config
    fits = options.command == "fit"
    parts = options.make_trainer_parts()
    config = {**parts.trainer}
    if isinstance(config["strategy"], ModelParallelStrategy):
        _check_sharding(given, config["strategy"], fits, resumed)
    config["enable_checkpointing"] = fits and config["enable_checkpointing"] is not False
    shows_progress = options.command != "predict" and config["enable_progress_bar"] is not False
    config["enable_progress_bar"] = shows_progress
    config["callbacks"] = _as_list(config["callbacks"])
    if shows_progress:
        config["callbacks"].append(EpochProgress())
    config["callbacks"].append(Report(run, _output(options.command, given, run)))
    if fits and run is not None:
        config["callbacks"] += _fit_callbacks(parts, given, run, config["enable_checkpointing"])
    if run is not None:
        config["default_root_dir"] = run.path
    if config["logger"] in (None, True):
        rows = resumed.progress.rows if resumed else 0
        own = loggers(given.logger, run, given.project, rows) if fits and run else False
        config["logger"] = own
    config["plugins"] = [*_as_list(config["plugins"]), AtomicIO()]
    if SLURMEnvironment.detect():
        config |= preemption.layout(config["num_nodes"], config["devices"])
        config["plugins"].append(SLURMEnvironment(auto_requeue=False))  # `Last` does that
    try:
        trainer = L.Trainer(**config)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UsageError(f"trainer: {str(error).splitlines()[0]}") from error
    _check_devices(trainer)
    # Lightning's own handlers wait for the other processes, wherever these are
    trainer._signal_connector.register_signal_handlers = preemption.stop_signals.install
    return trainer


def _check_devices(trainer: L.Trainer) -> None:
    """Refuse so many processes on CPUs that they would hardly start."""
    most = 4 * (os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise UsageError(
            f"trainer.devices: {trainer.num_devices} processes are too many for {most // 4} CPUs"
        )


def check_output(output: str | None) -> None:
    """Refuse a file that cannot be written because its folder does not exist."""
    if output and (Path(output).is_dir() or not Path(output).absolute().parent.is_dir()):
        raise UsageError(f"{output} is not a file in a folder that exists")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _output(command: str, options: Any, run: RunDirectory | None) -> Path | None:
    """The file of the predictions."""
    if options.output:
        return Path(options.output)
    return run.predictions if run is not None and command != "predict" else None


def _fit_callbacks(
    parts: Namespace, given: Namespace, run: RunDirectory, saves: bool
) -> list[L.Callback]:
    averaging = [parts.ema] if parts.ema.decay else []
    if not saves:
        return [*averaging, parts.early_stopping]
    saver = parts.checkpoint
    saver.dirpath = str(run.checkpoints.absolute())
    if saver.save_top_k != 1 and saver.filename == "best":
        saver.filename = "best-{epoch}"  # several need several names
    last = Last(run.last.absolute(), given.save_every_n_steps)
    return [*averaging, parts.early_stopping, saver, last]


def _check_sharding(
    given: Namespace, strategy: Any, fits: bool, resumed: Checkpoint | None
) -> None:
    """Refuse what sharded weights cannot do, before anything is written."""
    if strategy._save_distributed_checkpoint:
        raise UsageError(
            "a checkpoint is one file: --trainer.strategy.save_distributed_checkpoint false"
        )
    if fits and given.ema.decay:
        raise UsageError(
            "sharded weights have no average: leave --ema.decay out, or use --trainer.strategy ddp"
        )
    if fits and resumed is not None and not resumed.is_sharded:
        raise UsageError(
            f"{given.ckpt_path} is of a run without sharding: resume with its own "
            "--trainer.strategy, or start a new run with --init_from"
        )
