"""The command line: configs, run directory, loggers, checkpoints. `main.py` calls `main`."""

import ast
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NoReturn

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls what jsonargparse will drop

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import residense.data.tagging
import residense.tasks.tagging  # noqa: F401  (short class names are found among the classes that are imported)
from residense.arguments import UsageError, arrange, class_config, config_files, read_checkpoint
from residense.callbacks.ema import EMA
from residense.callbacks.predictions import Predictions
from residense.callbacks.progress import Bar, Lines
from residense.callbacks.report import Report
from residense.complaints import complaint, locate
from residense.data.vocabulary import Vocabulary
from residense.history import History
from residense.messages import say
from residense.run import has_wandb_login, is_terminal, record_run, run_directory
from residense.tasks.base import Task

PACKAGE = str(Path(__file__).parent)


class Parser(LightningArgumentParser):
    """Complains in a few lines, refuses abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.logger = _dropped_options()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and the nearest valid name."""
        if not self.exit_on_error:  # a part of the command line: the parser of the whole will say it
            super().error(message, ex)
        raise UsageError(complaint(message, _option_names(self), _class_names()))


def _dropped_options() -> logging.Logger:
    """A logger that passes on one of the parser's remarks: options lost because their class was swapped."""
    logger = logging.getLogger("residense.parser")
    logger.handlers = [_Losses()]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


class _Losses(logging.Handler):
    """Says which options are not used any more because another class was chosen."""

    def emit(self, record: logging.LogRecord) -> None:
        loss = _loss(record.getMessage())
        if loss:
            say(loss)


def _loss(remark: str) -> str | None:
    """The remark in our words; nothing where all that is dropped are the defaults of the class before."""
    found = re.search(r"change from '([\w.]+)' to '([\w.]+)', discarding init_args: (.*)\.$", remark, re.S)
    if not found:
        return None
    before, after, options = found.groups()
    try:
        dropped = ast.literal_eval(options)
    except ValueError:  # holds a class: only the default model and data do
        return None
    module, _, name = before.rpartition(".")
    defaults = inspect.signature(getattr(import_module(module), name)).parameters
    lost = {k: v for k, v in dropped.items() if k not in defaults or v != defaults[k].default}
    names = ", ".join(f"{k}={v}" for k, v in lost.items())
    return f"{before.split('.')[-1]} gave way to {after.split('.')[-1]}; not used: {names}" if lost else None


def _option_names(parser: LightningArgumentParser) -> set[str]:
    parsers = [parser, *getattr(getattr(parser, "_subcommands_action", None), "choices", {}).values()]
    own = {action.dest for p in parsers for action in p._actions if not action.dest.endswith(".help")}
    return own | {name for cls in _classes() for name in cls.__init__.__annotations__ if name != "return"}


def _class_names() -> set[str]:
    return {cls.__name__ for cls in _classes()}


def _classes() -> list[type]:
    import residense

    return [item for item in (getattr(residense, name) for name in residense._HOME) if isinstance(item, type)]


class CLI(LightningCLI):
    """`python main.py fit|validate|test|predict`: LightningCLI with a run directory and honest checkpoints."""

    def __init__(self, arguments: list[str]):
        self.arguments = arguments
        self.run_dir: Path | None = None
        super().__init__(
            Task,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,  # batches are shared out by the data module
                "enable_autolog_hparams": False,
                "enable_model_summary": False,
            },
            args=arrange(arguments),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default="run", help="name of the run: runs/NAME/TIME-ID")
        parser.add_argument("--run_dir", type=str | None, default=None, help="directory of the run, new or to continue")
        parser.add_argument(
            "--logger",
            type=Literal["wandb", "csv", "none"],
            default="wandb",
            help="wandb: W&B (offline without a key) and CSV; csv: CSV alone; none",
        )
        parser.add_argument("--project", type=str, default="residense", help="W&B project")
        parser.add_argument("--output", type=str | None, default=None, help="file for predictions, JSON lines")
        parser.add_argument("--init_from", type=str | None, default=None, help="checkpoint to start the weights from")
        parser.add_argument("--test_after_fit", type=bool, default=True, help="test the best checkpoint after training")
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
            {"early_stopping.monitor": "val/f1", "early_stopping.mode": "max", "early_stopping.patience": 10}
        )
        parser.add_lightning_class_args(EMA, "ema")

    def _parse_ckpt_path(self) -> None:
        """Leave what was typed as it is: `arrange` put a checkpoint's configuration in front of it."""

    def before_instantiate_classes(self) -> None:
        options = self.config[self.subcommand]
        if self.subcommand == "fit":
            self._refuse_what_would_be_lost(options)
            self.run_dir = run_directory(options.name, options.run_dir)
            options.checkpoint.dirpath = str(self.run_dir / "checkpoints")
        elif options.run_dir:
            self.run_dir = Path(options.run_dir)

    def _refuse_what_would_be_lost(self, options: Any) -> None:
        """A resumed run keeps its model; a finished one is not overwritten."""
        ckpt = options.get("ckpt_path")
        if ckpt:
            before = class_config(read_checkpoint(ckpt)["hyper_parameters"])
            changed = _differences(_plain(before), _plain(options.model.as_dict()))
            if changed:
                raise UsageError(
                    f"a resumed run keeps its model, but {', '.join(changed[:3])} would change; "
                    "leave that out, or begin a new run with --init_from"
                )
        elif options.run_dir and (Path(options.run_dir) / "checkpoints").exists() and "LOCAL_RANK" not in os.environ:
            raise UsageError(f"{options.run_dir} holds a run: continue it with --ckpt_path last, or name another")

    def after_instantiate_classes(self) -> None:
        """The vocabulary of a checkpoint comes before that of any data."""
        options = self.config[self.subcommand]
        if options.get("ckpt_path"):
            self.model.adopt(Vocabulary(**read_checkpoint(options.ckpt_path)["vocabulary"]))
        elif options.get("init_from") and self.subcommand == "fit":
            checkpoint = read_checkpoint(options.init_from)
            self.datamodule.known = Vocabulary(**checkpoint["vocabulary"])
            self.model.initial_weights = checkpoint["state_dict"]

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        options = self.config_init[self.subcommand]
        callbacks: list[L.Callback] = [Predictions(self._output(options)), Report(self.run_dir)]
        if self.subcommand == "fit":
            callbacks += [c for c in self._own_callbacks(options) if c is not None]
        if self.subcommand != "predict" and options.trainer.enable_progress_bar is not False:
            callbacks.append(Bar(leave=False) if is_terminal() else Lines())
        config = {**options.trainer, **kwargs}
        config["default_root_dir"] = self.run_dir or config.get("default_root_dir")
        config["enable_checkpointing"] = self.subcommand == "fit" and config.get("enable_checkpointing") is not False
        config["enable_progress_bar"] = config.get("enable_progress_bar") is not False and self.subcommand != "predict"
        if config.get("logger") in (None, True):
            config["logger"] = self._loggers(options) if self.run_dir else False
        try:
            return self._instantiate_trainer(config, callbacks)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(f"trainer: {str(error).splitlines()[0]}") from error

    def _own_callbacks(self, options: Any) -> list[L.Callback | None]:
        averaged = options.ema if options.ema.decay else None
        if options.trainer.enable_checkpointing is False:
            return [averaged, options.early_stopping]
        # ModelCheckpoint's own save_last writes only when a best one is written
        last = ModelCheckpoint(options.checkpoint.dirpath, "last", enable_version_counter=False)
        return [averaged, options.early_stopping, options.checkpoint, last]

    def _output(self, options: Any) -> Path | None:
        if options.output:
            return Path(options.output)
        return self.run_dir / "predictions.jsonl" if self.run_dir else None

    def _loggers(self, options: Any) -> list[Logger] | Literal[False]:
        assert self.run_dir is not None
        if options.logger == "none":
            return False
        ckpt = options.get("ckpt_path")
        csv = History(self.run_dir, read_checkpoint(ckpt)["global_step"] if ckpt else 0)
        return [csv, self._wandb(options)] if options.logger == "wandb" else [csv]

    def _wandb(self, options: Any) -> Logger:
        from lightning.pytorch.loggers import WandbLogger

        offline = os.environ.get("WANDB_MODE") == "offline" or not has_wandb_login()
        os.environ.setdefault("WANDB_SILENT", "true")
        name = "/".join(self.run_dir.parts[-2:])  # type: ignore[union-attr]
        logger = WandbLogger(name=name, save_dir=self.run_dir, project=options.project, offline=offline, resume="allow")
        logger._wandb_init.pop("anonymous", None)  # W&B warns of it even where it is not set
        return logger

    # -- what is run ------------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        assert self.run_dir is not None
        self.run_dir.mkdir(parents=True, exist_ok=True)
        config = self._parser("fit").dump(self.config["fit"], skip_none=False)
        if self.trainer.is_global_zero:
            record_run(self.run_dir, config, self.arguments)
        for logger in self.trainer.loggers:
            if not isinstance(logger, History):
                logger.log_hyperparams(self.config["fit"].as_dict())
            if getattr(logger, "_offline", False):
                say(f"W&B is offline; `wandb sync {self.run_dir}/wandb/offline-run-*` uploads the run later")
        say(f"run directory: {self.run_dir}")

    def after_fit(self) -> None:
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        best = self.trainer.checkpoint_callback.best_model_path if self.trainer.checkpoint_callback else ""
        stage = "test" if "test" in self.datamodule.splits else "validate"
        if best and self.config_init["fit"].test_after_fit:
            getattr(self.trainer, stage)(self.model, datamodule=self.datamodule, ckpt_path=best, verbose=False)
        self._say_what_is_where(best)

    @rank_zero_only
    def _say_what_is_where(self, best: str) -> None:
        early = self.trainer.early_stopping_callback
        print(f"best validation F1 {float(early.best_score):.4f}" if early else "", f"run directory {self.run_dir}")
        print(f'next: python main.py predict --ckpt_path {best} --data.text "..."')


def _plain(config: dict[str, Any]) -> Any:
    """As it would come back from a file: tuples are lists, and it is not told which file a part came from."""
    if isinstance(config, dict):
        return {key: _plain(value) for key, value in config.items() if key != "__path__"}
    return [_plain(value) for value in config] if isinstance(config, list | tuple) else config


def _differences(before: Any, after: Any, place: str = "model") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in {**before, **after} if key != "dict_kwargs"]
        return [d for key in keys for d in _differences(before.get(key), after.get(key), f"{place}.{key}")]
    return [] if before == after else [place.replace(".init_args", "").removesuffix(".class_path")]


def quiet() -> None:
    """Keep back what the framework says and nobody can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    quiet()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        CLI(words)
    except ValueError as error:
        if not _is_ours(error):
            raise
        print(f"error: {locate(str(error), config_files(words))}", file=sys.stderr)
        return 2
    return 0


def _is_ours(error: BaseException) -> bool:
    """Whether this project raised the error: then its message says all; else the traceback is needed."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, UsageError) or (bool(frames) and frames[-1].filename.startswith(PACKAGE))
