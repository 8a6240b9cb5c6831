"""The command line: LightningCLI with a run directory, and with checkpoints that are complete."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Lightning calls what jsonargparse will remove
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import lightning as L
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import residense.data.classification  # class names without a module are looked up in these
import residense.data.slots
import residense.tasks.classification
import residense.tasks.joint  # noqa: F401
from residense.callbacks.ema import EMA
from residense.errors import UsageError, one_line
from residense.messages import printable, quiet
from residense.run.checkpoint_io import read
from residense.run.checkpoints import Checkpoint
from residense.run.directory import RunDirectory, RunOptions
from residense.run.environment import describe
from residense.run.trainer import DEFAULTS, make_trainer
from residense.settings import configs, trust
from residense.settings.arguments import arrange
from residense.settings.parser import Parser, with_source
from residense.tasks.base import Task
from residense.train import Fit

set_parsing_settings(config_read_mode_fsspec_enabled=False)  # Lightning reads configs from any URL

CLASSES = {
    "trainer": L.Trainer,
    "checkpoint": ModelCheckpoint,
    "early_stopping": EarlyStopping,
    "ema": EMA,
}
WATCHED = {
    "checkpoint.monitor": "val/f1",
    "checkpoint.mode": "max",
    "checkpoint.filename": "best",
    "checkpoint.enable_version_counter": False,
    "early_stopping.monitor": "val/f1",
    "early_stopping.mode": "max",
    "early_stopping.patience": 10,
    "early_stopping.strict": False,  # a run shorter than an epoch has nothing to watch
}
DESCRIPTION = (
    "Train, evaluate and use NLP encoders with interchangeable connections. "
    "--version prints versions, devices and the state of git, for bug reports."
)


class CLI(LightningCLI):
    """`python main.py fit|validate|test|predict`.

    Args:
        arguments: words of the command line.
    """

    def __init__(self, arguments: list[str]):
        self.arguments = arguments
        self.run: RunDirectory | None = None
        self.resumed: Checkpoint | None = None  # what --ckpt_path names
        super().__init__(
            Task,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"description": DESCRIPTION},
            trainer_defaults=DEFAULTS,
            args=arrange(arguments),
        )

    # -- parsing ----------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunOptions, instantiate=False)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(EMA, "ema")
        parser.set_defaults(WATCHED)

    def parse_arguments(self, parser: LightningArgumentParser, args: Sequence[str]) -> None:
        try:
            self.config = parser.parse_args(args)
        except UsageError as error:
            raise UsageError(with_source(str(error), args)) from None
        options = self.config.as_dict().get(str(self.config.get("subcommand")), {})
        trust.check(options.get("model"), Task, "model")
        trust.check(options.get("data"), L.LightningDataModule, "data")
        for part, cls in CLASSES.items():
            trust.check_arguments(cls, options.get(part) or {}, part)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UsageError(f"seed_everything: {error}") from error

    def _parse_ckpt_path(self) -> None:
        """Keep what was typed: Lightning would replace it by the settings of the checkpoint."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return kwargs | {"verbose": False} if "verbose" in kwargs else kwargs  # see Report

    def resolved(self) -> str:
        """Return all options of `fit` with their values, as config.yaml contains them."""
        return self._parser("fit").dump(self.config["fit"], skip_none=False)

    # -- making the parts -------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        options = self.config[str(self.subcommand)]
        output = Path(options.output) if options.output else None
        if output and (output.is_dir() or not output.absolute().parent.is_dir()):
            raise UsageError(f"--output {output} is not a file in a folder that exists")
        if options.get("ckpt_path"):
            self.resumed = read(options.ckpt_path)
        if self.subcommand == "fit":
            self._refuse_loss(options)
            self.run = RunDirectory.create(options.name, options.run_dir)
            if options.checkpoint.dirpath:
                raise UsageError(
                    "checkpoints are kept in the run directory: "
                    "use --run_dir, not --checkpoint.dirpath"
                )
            if options.checkpoint.save_top_k != 1 and options.checkpoint.filename == "best":
                options.checkpoint.filename = "best-{epoch}"  # several need several names
        elif options.run_dir:
            self.run = RunDirectory(options.run_dir)

    def _refuse_loss(self, options: Any) -> None:
        """Refuse to change the model of a resumed run, and to overwrite a run."""
        if self.resumed and options.init_from:
            raise UsageError(
                "--ckpt_path resumes a run, --init_from starts a new one: give one of them"
            )
        if self.resumed:
            settings = self.resumed.settings
            now = {name: options[name].as_dict() for name in settings}
            if changed := sorted(configs.differences(settings, now)):
                raise UsageError(
                    f"a resumed run keeps its model and data, but {', '.join(changed[:3])} would "
                    "change; leave that out, or begin a new run with --init_from"
                    f"{self.resumed.saved_by()}"
                )
            return
        chosen = options.run_dir if "LOCAL_RANK" not in os.environ else None
        if chosen and RunDirectory(chosen).is_started():
            raise UsageError(
                f"{chosen} holds a run: continue it with --ckpt_path last, or name another"
            )

    def after_instantiate_classes(self) -> None:
        """Give the model the vocabulary of its checkpoint, or the data that of the warm start."""
        options = self.config[str(self.subcommand)]
        if self.subcommand == "fit":
            self._check_monitors(options)
        if self.resumed:
            self.model.adopt(self.resumed.vocabulary)
        elif self.subcommand == "fit" and options.init_from:
            start = read(options.init_from)
            self.datamodule.known = start.vocabulary
            self.model.initial_weights = start.weights

    def _check_monitors(self, options: Any) -> None:
        """Refuse to watch what is not logged, or in the wrong direction."""
        scores = self.model.scores
        for name in ("checkpoint", "early_stopping"):
            monitor = options[name].monitor
            if monitor not in scores:
                raise UsageError(
                    f"{name}.monitor: {monitor} is not logged; there are: {', '.join(scores)}"
                )
            mode = scores[monitor]
            if options[name].mode != mode:
                raise UsageError(
                    f"{name}.mode: {monitor} is best when {mode}imal: --{name}.mode {mode}"
                )

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        command = str(self.subcommand)
        return make_trainer(command, self.config_init[command], self.run, self.resumed)

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand != "fit":
            super()._run_subcommand(subcommand)
            return
        assert self.run is not None
        options = self.config["fit"].as_dict()
        fit = Fit(self.trainer, self.model, self.datamodule, self.run, options, self.resumed)
        self.resumed = None  # as an open file it would keep its space on the disk
        fit(self.resolved(), self.arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and return the exit code."""
    quiet()
    sys.path.append(os.getcwd())  # where the user's own classes are
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(describe())
        return 0
    try:
        CLI(words)
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # Lightning exits with 1
            raise SystemExit(128 + signal.SIGINT) from None
        raise
    except (ValueError, OSError, MisconfigurationException) as error:
        message = one_line(error)
        if message is None:
            raise
        print("\n".join(map(printable, f"error: {message}".split("\n"))), file=sys.stderr)
        return 2
    return 0
