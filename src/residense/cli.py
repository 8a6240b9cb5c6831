"""The command line: configs, run directory, loggers, checkpoints. `main.py` calls `main`."""

import argparse
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault(
    "JSONARGPARSE_DEPRECATION_WARNINGS", "off"
)  # Lightning calls what jsonargparse will drop

import lightning as L
from jsonargparse import set_parsing_settings
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only

import residense.data.classification  # short class names are found among the classes that are imported
import residense.data.slots
import residense.tasks.classification
import residense.tasks.joint  # noqa: F401
from residense import preemption, trust
from residense.arguments import arrange
from residense.callbacks.ema import EMA
from residense.callbacks.last import Last
from residense.callbacks.predictions import Predictions
from residense.callbacks.progress import Bar, Lines
from residense.callbacks.report import Report
from residense.checkpoint_io import AtomicIO, read
from residense.environment import describe, git_state
from residense.errors import UsageError, one_line
from residense.loggers import History, loggers, remember_wandb
from residense.messages import printable, say
from residense.parser import Parser, locate
from residense.preemption import Stopped, stop_signals
from residense.run import RunDirectory
from residense.tasks.base import Task

set_parsing_settings(
    config_read_mode_fsspec_enabled=False
)  # Lightning has configs read from any URL

CLASSES = {
    "trainer": L.Trainer,
    "checkpoint": ModelCheckpoint,
    "early_stopping": EarlyStopping,
    "ema": EMA,
}
OF_TEXT = 'Parser key "config"'  # how jsonargparse calls a config that was given as text
PACKAGE = str(Path(__file__).parent)


class Version(argparse.Action):
    """`--version`: prints what a report of a bug should say, and ends."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any):
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=kwargs.get("help")
        )

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        print(describe())
        parser.exit()


class CLI(LightningCLI):
    """`python main.py fit|validate|test|predict`: LightningCLI with a run directory and honest checkpoints."""

    def __init__(self, arguments: list[str]):
        self.arguments = arguments
        self.run: RunDirectory | None = None
        super().__init__(
            Task,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "description": "Train, evaluate and use NLP encoders with interchangeable connections."
            },
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,  # batches are shared out by the data module
                "enable_autolog_hparams": False,
                "enable_model_summary": False,
            },
            args=arrange(arguments),
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        self.parser.add_argument(
            "--version",
            action=Version,
            help="Print versions, devices and the state of git: for reports.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Sequence[str]) -> None:
        configs = [word.removeprefix("--config=") for word in args if word.startswith("--config=")]
        try:
            self.config = parser.parse_args(args)
        except UsageError as error:
            message = locate(str(error), [name for name in configs if name[0] != "{"])
            ckpt = _value("--ckpt_path=", args)
            if ckpt and message.startswith(f"{OF_TEXT}: "):
                message = message.replace(OF_TEXT, ckpt, 1) + read(ckpt).saved_by()
            raise UsageError(message) from None
        options = self.config.as_dict().get(str(self.config.get("subcommand")), {})
        for part, base in {"model": Task, "data": L.LightningDataModule}.items():
            trust.check(options.get(part), base, part)
        for part, cls in CLASSES.items():
            trust.check_arguments(cls, options.get(part) or {}, part)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str, default="run", help="name of the run: runs/NAME/TIME-ID"
        )
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="directory of the run, new or to continue",
        )
        parser.add_argument(
            "--logger",
            type=Literal["wandb", "csv", "none"],
            default="wandb",
            help="wandb: W&B (offline without a key) and CSV; csv: CSV alone; none",
        )
        parser.add_argument(
            "--project",
            type=str,
            default="residense",
            help="project of W&B that the run is logged to",
        )
        parser.add_argument(
            "--output", type=str | None, default=None, help="file for predictions, JSON lines"
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="checkpoint to start the weights from",
        )
        parser.add_argument(
            "--trust",
            type=str | None,
            default=None,
            help="your modules that a checkpoint may import, as a,b",
        )
        parser.add_argument(
            "--save_every_n_steps",
            type=int | None,
            default=None,
            help="write last.ckpt within epochs as well",
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="test the best checkpoint after training",
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/f1",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "early_stopping.monitor": "val/f1",
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
                "early_stopping.strict": False,  # a run shorter than an epoch has nothing to watch
            }
        )
        parser.add_lightning_class_args(EMA, "ema")

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UsageError(f"seed_everything: {error}") from error

    def _parse_ckpt_path(self) -> None:
        """Leave what was typed as it is: `arrange` put a checkpoint's configuration in front of it."""

    def before_instantiate_classes(self) -> None:
        options = self.config[str(self.subcommand)]
        output = Path(options.output) if options.output else None
        if output and (output.is_dir() or not output.absolute().parent.is_dir()):
            raise UsageError(f"--output {output} is not a file in a folder that exists")
        if self.subcommand == "fit":
            self._refuse_what_would_be_lost(options)
            self.run = RunDirectory.create(options.name, options.run_dir)
            if options.checkpoint.dirpath:
                raise UsageError(
                    "checkpoints are kept in the run directory: use --run_dir, not --checkpoint.dirpath"
                )
            if options.checkpoint.save_top_k != 1 and options.checkpoint.filename == "best":
                options.checkpoint.filename = "best-{epoch}"  # several best ones need several names
        elif options.run_dir:
            self.run = RunDirectory(options.run_dir)

    def _refuse_what_would_be_lost(self, options: Any) -> None:
        """A resumed run keeps its model; a finished one is not overwritten."""
        ckpt = options.get("ckpt_path")
        if ckpt and options.init_from:
            raise UsageError(
                "--ckpt_path goes on with a run, --init_from begins a new one: give one of them"
            )
        if ckpt:
            checkpoint = read(ckpt)
            now = {name: options[name].as_dict() for name in checkpoint.settings}
            changed = sorted(differences(checkpoint.settings, now, ""))
            if changed:
                raise UsageError(
                    f"a resumed run keeps its model and data, but {', '.join(changed[:3])} would change; "
                    f"leave that out, or begin a new run with --init_from{checkpoint.saved_by()}"
                )
        elif (
            options.run_dir
            and RunDirectory(options.run_dir).is_started()
            and "LOCAL_RANK" not in os.environ
        ):
            raise UsageError(
                f"{options.run_dir} holds a run: continue it with --ckpt_path last, or name another"
            )

    def after_instantiate_classes(self) -> None:
        """The vocabulary of a checkpoint comes before that of any data."""
        options = self.config[str(self.subcommand)]
        if self.subcommand == "fit":
            self._check_monitors(options)
        if options.get("ckpt_path"):
            self.model.adopt(read(options.ckpt_path).vocabulary)
        elif options.get("init_from") and self.subcommand == "fit":
            checkpoint = read(options.init_from)
            self.datamodule.known = checkpoint.vocabulary
            self.model.initial_weights = checkpoint.weights

    def _check_monitors(self, options: Any) -> None:
        """What is watched must be logged, and be better in the direction that is asked for."""
        for name in ("checkpoint", "early_stopping"):
            monitor, mode = options[name].monitor, options[name].mode
            right = self.model.scores.get(monitor)
            if right is None:
                raise UsageError(
                    f"{name}.monitor: {monitor} is not logged; there are: {', '.join(self.model.scores)}"
                )
            if mode != right:
                raise UsageError(
                    f"{name}.mode: {monitor} is best when {right}imal: --{name}.mode {right}"
                )

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        options = self.config_init[str(self.subcommand)]
        if isinstance(options.trainer.strategy, ModelParallelStrategy):
            self._check_sharding(options)
        callbacks: list[L.Callback] = []
        if self.subcommand != "predict" and options.trainer.enable_progress_bar is not False:
            callbacks.append(Bar() if sys.stdout.isatty() else Lines())
        callbacks += [Predictions(self._output(options)), Report(self.run)]
        if self.subcommand == "fit":
            callbacks += self._own_callbacks(options)
        config = {**options.trainer, **kwargs}
        if self.run:
            config["default_root_dir"] = self.run.path
        config["enable_checkpointing"] = (
            self.subcommand == "fit" and config.get("enable_checkpointing") is not False
        )
        config["enable_progress_bar"] = (
            config.get("enable_progress_bar") is not False and self.subcommand != "predict"
        )
        if config.get("logger") in (None, True):
            run = self.run if self.subcommand == "fit" else None
            ckpt = options.get("ckpt_path")
            rows = read(ckpt).progress.rows if ckpt else 0
            config["logger"] = loggers(options.logger, run, options.project, rows) if run else False
        plugins = config.get("plugins") or []
        config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicIO()]
        if SLURMEnvironment.detect():
            config |= preemption.layout(config["num_nodes"], config["devices"])
            config["plugins"].append(SLURMEnvironment(auto_requeue=False))  # `Last` does that
        try:
            trainer = self._instantiate_trainer(config, callbacks)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(f"trainer: {str(error).splitlines()[0]}") from error
        # Lightning's own handler waits for the other processes, wherever these are
        trainer._signal_connector.register_signal_handlers = stop_signals.install
        return trainer

    def _check_sharding(self, options: Any) -> None:
        """Refuse what sharded weights cannot do, before anything is written."""
        if options.trainer.strategy._save_distributed_checkpoint:
            raise UsageError(
                "a checkpoint is one file: --trainer.strategy.save_distributed_checkpoint false"
            )
        if self.subcommand != "fit":
            return
        if options.ema.decay:
            raise UsageError(
                "sharded weights have no average: leave --ema.decay out, or use --trainer.strategy ddp"
            )
        if options.get("ckpt_path") and not read(options.ckpt_path).is_sharded:
            raise UsageError(
                f"{options.ckpt_path} is of a run without sharding: go on with its own "
                "--trainer.strategy, or begin a new run with --init_from"
            )

    def _own_callbacks(self, options: Any) -> list[L.Callback]:
        averaged = [options.ema] if options.ema.decay else []
        if options.trainer.enable_checkpointing is False:
            return [*averaged, options.early_stopping]
        assert self.run is not None
        options.checkpoint.dirpath = str(self.run.checkpoints.absolute())
        last = Last(self.run.last.absolute(), options.save_every_n_steps)
        return [*averaged, options.early_stopping, options.checkpoint, last]

    def _output(self, options: Any) -> Path | None:
        if options.output:
            return Path(options.output)
        return self.run.predictions if self.run and self.subcommand != "predict" else None

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return kwargs | ({"verbose": False} if "verbose" in kwargs else {})  # our table says it all

    def resolved(self) -> str:
        """All options of `fit` with their values, as config.yaml keeps them."""
        return self._parser("fit").dump(self.config["fit"], skip_none=False)

    # -- what is run ------------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "fit" and self._is_complete():
            self._claim()
            self._finish()
        else:
            super()._run_subcommand(subcommand)

    def _is_complete(self) -> bool:
        """Whether the checkpoint is of a run that was trained and tested; then its best model is known."""
        options, saved = self.config_init["fit"], self.trainer.checkpoint_callback
        if not options.ckpt_path or not isinstance(saved, ModelCheckpoint):
            return False
        checkpoint = read(options.ckpt_path)
        state = checkpoint.relocate(saved) if checkpoint.is_trained(self.trainer) else None
        if state is None:
            return False
        saved.load_state_dict(state)
        self.datamodule.prepare_data()
        self.datamodule.vocabulary = self.model.vocabulary
        self.datamodule.setup("fit")
        assert self.run is not None
        return not options.test_after_fit or self.run.results(self._evaluation()).exists()

    def _claim(self) -> None:
        """Hold the run directory, and clean up after a process that was killed there."""
        assert self.run is not None
        if self.trainer.is_global_zero:
            self.run.claim()

    def _evaluation(self) -> str:
        """How the best model is evaluated after training."""
        return "test" if "test" in self.datamodule.splits else "validate"

    def before_fit(self) -> None:
        assert self.run is not None
        self.datamodule.prepare_data()  # what is wrong with the data is said before anything is written
        self.run.path.mkdir(parents=True, exist_ok=True)
        self._claim()
        if self.trainer.is_global_zero:
            for stage in ("validate", "test"):  # the best model may become another one
                self.run.results(stage).unlink(missing_ok=True)
            self.run.record(self.resolved(), self.arguments)
            remember_wandb(self.run, self.trainer.loggers)
        for logger in self.trainer.loggers:
            if not isinstance(logger, History):
                logger.log_hyperparams(
                    {**_plain(self.config["fit"].as_dict()), "git": git_state().splitlines()[:2]}
                )
            if getattr(logger, "_offline", None) is True:
                reason = getattr(logger, "offline_reason", "")
                offline = f"W&B is offline ({reason})" if reason else "W&B is offline"
                say(f"{offline}; `wandb sync {self.run.wandb}/offline-run-*` uploads the run later")
        say(f"run directory: {self.run}")
        stop_signals.deferred = any(
            isinstance(callback, Last)
            for callback in self.trainer.callbacks  # type: ignore[attr-defined]
        )

    def after_fit(self) -> None:
        if stop_signals.received:
            raise Stopped(
                stop_signals.received
            )  # the last epoch is saved, its test can follow later
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        best = self._best()
        if best and self.config_init["fit"].test_after_fit:
            evaluate = getattr(self.trainer, self._evaluation())
            self.trainer.strategy.optimizers = []  # sharding would look for their state, which a checkpoint may lack
            evaluate(
                self.model,
                datamodule=self.datamodule,
                ckpt_path=best.best_model_path,
                verbose=False,
            )
        self._finish()

    def _best(self) -> ModelCheckpoint | None:
        """What keeps the best model, if one has been saved."""
        saved = self.trainer.checkpoint_callback
        return saved if isinstance(saved, ModelCheckpoint) and saved.best_model_path else None

    @rank_zero_only
    def _finish(self) -> None:
        """Close W&B, and say what came of it all and what can be typed next."""
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and logger._experiment is not None:
                logger.experiment.finish()
        assert self.run is not None
        self.run.release()
        print(f"run directory: {self.run}")
        best = self._best()
        if best and best.best_model_score is not None:
            path = os.path.relpath(best.best_model_path)
            epoch = read(path).epoch + 1
            print(f"best {best.monitor} {best.best_model_score:.4f} in epoch {epoch}")
            own = trust.own_modules(self.config["fit"].as_dict())
            flag = f" --trust {','.join(sorted(own))}" if own else ""
            print(f'next: python main.py predict --ckpt_path {path}{flag} --data.text "..."')


class Plan(CLI):
    """What `fit` would do with these options, in the directory of a run or a new one; nothing is run or written."""

    def __init__(self, options: list[str]):
        quiet()
        sys.path.append(os.getcwd())
        with redirect_stderr(io.StringIO()):  # the run itself will say it
            super().__init__(["fit", *options])

    def _refuse_what_would_be_lost(self, options: Any) -> None:
        """Nothing is."""

    def instantiate_classes(self) -> None:
        """Make the model and the data module, and no trainer."""
        parts = self.parser.instantiate_classes(self.config)["fit"]
        self.model, self.datamodule = parts["model"], parts["data"]

    def _run_subcommand(self, subcommand: str) -> None:
        """It is not run."""

    def fingerprint(self) -> dict[str, str] | None:
        """Of the data that the run would read; null for a data module that has none."""
        with redirect_stderr(io.StringIO()):
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
        return getattr(self.datamodule, "fingerprint", None)


def _value(option: str, words: Sequence[str]) -> str | None:
    return next((word.removeprefix(option) for word in words if word.startswith(option)), None)


def _plain(config: object) -> Any:
    """As it would come back from a file: tuples are lists, and it is not told which file a part came from."""
    if isinstance(config, dict):
        return {key: _plain(value) for key, value in config.items() if key != "__path__"}
    return [_plain(value) for value in config] if isinstance(config, list | tuple) else config


def differences(before: object, now: object, place: str) -> dict[str, tuple[object, object]]:
    """Options that differ between two configs, as they are typed, each with both values."""
    before, now = _plain(before), _plain(now)
    if isinstance(before, dict) and isinstance(now, dict):
        classes = before.get("class_path"), now.get("class_path")
        if classes[0] != classes[1]:  # options of another class say nothing more
            return {place.replace(".init_args", ""): classes}
        keys = [key for key in {**before, **now} if key != "dict_kwargs"]
        prefix = f"{place}." if place else ""
        parts = (differences(before.get(key), now.get(key), f"{prefix}{key}") for key in keys)
        return {name: values for part in parts for name, values in part.items()}
    return {} if before == now else {place.replace(".init_args", ""): (before, now)}


def quiet() -> None:
    """Keep back what the framework says and nobody can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(
        logging.INFO
    )  # where the time went, if that is asked
    warnings.filterwarnings("ignore", module="lightning")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    """Print a warning; where in the code one of this project comes from says nothing to a user."""
    place = (
        "warning" if filename.startswith(PACKAGE) else f"{filename}:{lineno}: {category.__name__}"
    )
    say(f"{place}: {message}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    quiet()
    sys.path.append(os.getcwd())  # classes of one's own are found in files where one stands
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        CLI(words)
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # for which Lightning exits with 1
            raise SystemExit(128 + signal.SIGINT) from None
        raise
    except (ValueError, OSError, MisconfigurationException) as error:
        message = one_line(error)
        if message is None:
            raise
        print("\n".join(map(printable, f"error: {message}".split("\n"))), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    stop_signals.install()
    sys.exit(main())
