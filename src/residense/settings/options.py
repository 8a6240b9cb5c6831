"""The options of a command: parsed by LightningCLI, checked, and made into parts."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Lightning calls what jsonargparse will remove
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import lightning as L
import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import residense.data.classification  # class names without a module are looked up in these
import residense.data.slots
import residense.tasks.classification
import residense.tasks.joint  # noqa: F401
from residense.callbacks.ema import EMA
from residense.data.module import TextDataModule
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.messages import program
from residense.settings import trust
from residense.settings.arguments import arrange
from residense.settings.parser import Parser, with_source
from residense.tasks.base import Task

set_parsing_settings(config_read_mode_fsspec_enabled=False)  # Lightning reads configs from any URL

TRAINER = {
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # the data module distributes the batches
    "enable_autolog_hparams": False,
    "enable_model_summary": False,
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
CALLBACKS = {"checkpoint": ModelCheckpoint, "early_stopping": EarlyStopping, "ema": EMA}


@dataclass
class RunOptions:
    """Options of a run.

    Args:
        model: Task to train, with its embeddings, encoder and head.
        data: Data module with the corpus.
        name: Name of the run: it is kept in runs/NAME/TIME-ID.
        run_dir: Directory of the run, new or to resume.
        ckpt_path: Checkpoint to resume from or to use; `last` or `best` of --run_dir, or a file.
        init_from: Checkpoint that a new run takes its weights from.
        logger: `wandb` (offline without a key) and `tensorboard` also write metrics.csv; `csv` only
            that; `none` nothing.
        project: Project of W&B that the run is logged to.
        output: File for the predictions, as JSON lines.
        trust: Modules of yours that a checkpoint may import, separated by commas.
        save_every_n_steps: Optimizer steps between saves of last.ckpt within an epoch.
        test_after_fit: Test the best checkpoint after training.
    """

    model: Callable[[Vocabulary], Task]
    data: L.LightningDataModule
    name: str = "run"
    run_dir: str | None = None
    ckpt_path: str | None = None
    init_from: str | None = None
    logger: Literal["wandb", "tensorboard", "csv", "none"] = "wandb"
    project: str = "residense"
    output: str | None = None
    trust: str | None = None
    save_every_n_steps: int | None = None
    test_after_fit: bool = True


class Options(LightningCLI):
    """Options of a command, and the parts that they describe.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        words: Rest of the command line.

    Raises:
        UsageError: An option is unknown, malformed or not trusted.
    """

    def __init__(self, command: str, words: Sequence[str]):
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # where the user's own classes are
        self.command = command
        self.words = words
        self.arranged = arrange(command, words)
        super().__init__(
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"usage": f"{program()} {command} [OPTION ...]", "description": None},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=self.arranged,
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options: those of a run first, then those of Lightning."""
        parser.add_class_arguments(
            RunOptions, fail_untyped=False, instantiate=False, sub_configs=True
        )
        for name, cls in CALLBACKS.items():
            parser.add_lightning_class_args(cls, name)
        parser.add_lightning_class_args(L.Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER.items()})
        parser.set_defaults(WATCHED)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the words, and refuse what must not be called."""
        try:
            self.config = parser.parse_args(self.arranged)
        except UsageError as error:
            raise UsageError(with_source(str(error), self.arranged)) from None
        except SyntaxError as error:  # in a file of the user that an option names
            raise UsageError(f"{error.filename}:{error.lineno}: {error.msg}") from None
        options = self.config.as_dict()
        trust.check(options["model"], Task, "model")
        trust.check(options["data"], L.LightningDataModule, "data")
        for name, cls in {**CALLBACKS, "trainer": L.Trainer}.items():
            trust.check_arguments(cls, options[name], name)
        if not 0 <= options["seed_everything"] < 2**32:
            raise UsageError(f"seed_everything: not a seed: {options['seed_everything']}")

    def instantiate_classes(self) -> None:
        """Do nothing: a command makes the parts in its own order."""

    def as_yaml(self) -> str:
        """Return all options with their values, as config.yaml contains them."""
        return self.parser.dump(self.config, skip_none=False)

    def make_data(self) -> TextDataModule:
        """Make the data module."""
        data = self._make(False, "data").data
        data.save_hyperparameters(self._settings("data"), logger=False)
        return data

    def make_model(self, vocabulary: Vocabulary) -> Task:
        """Make the model for a vocabulary.

        Raises:
            UsageError: Its parts do not fit together.
        """
        try:
            model = self._make(False, "model").model(vocabulary)
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(f"model: {error}") from error
        model.save_hyperparameters(self._settings("model"), logger=False)
        return model

    def make_trainer_parts(self) -> Namespace:
        """Make the callbacks, and the objects among the arguments of the trainer."""
        return self._make(True, "trainer", *CALLBACKS)

    def _make(self, with_groups: bool, *names: str) -> Namespace:
        chosen = Namespace({name: self.config[name] for name in names})
        return self.parser.instantiate(chosen, instantiate_groups=with_groups)

    def _settings(self, name: str) -> dict[str, Any]:
        return yaml.safe_load(self.as_yaml())[name]
