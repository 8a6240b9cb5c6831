"""The commands that use a checkpoint: `validate`, `test` and `predict`."""

from collections.abc import Sequence
from typing import Any

import lightning as L

from residense.run.checkpoint_io import read
from residense.run.directory import RunDirectory
from residense.run.trainer import check_output, make_trainer
from residense.settings.options import Options


def _prepare(command: str, words: Sequence[str]) -> tuple[L.Trainer, dict[str, Any]]:
    """Return a trainer, and the model, data and checkpoint that it runs with."""
    options = Options(command, words)
    given = options.config
    check_output(given.output)
    run = RunDirectory(given.run_dir) if given.run_dir else None
    trainer = make_trainer(options, run)
    data = options.make_data()
    data.vocabulary = read(given.ckpt_path).vocabulary
    model = options.make_model(data.vocabulary)
    return trainer, {"model": model, "datamodule": data, "ckpt_path": given.ckpt_path}


def validate(words: Sequence[str]) -> None:
    """Evaluate a checkpoint on the validation split."""
    trainer, parts = _prepare("validate", words)
    trainer.validate(**parts, verbose=False)


def test(words: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test split."""
    trainer, parts = _prepare("test", words)
    trainer.test(**parts, verbose=False)


def predict(words: Sequence[str]) -> None:
    """Predict new texts with a checkpoint."""
    trainer, parts = _prepare("predict", words)
    trainer.predict(**parts, return_predictions=False)
