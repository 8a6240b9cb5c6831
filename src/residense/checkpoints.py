"""Checkpoints that are whole or not there, wherever the folder for temporary files is.

Lightning's own are assembled in $TMPDIR: on another filesystem, a full disk leaves a corrupt file in place of the old.
"""

import io
import platform
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

import residense
from residense.arguments import previous, read_checkpoint
from residense.atomic import write_atomically


def versions() -> dict[str, str]:
    """Versions that a checkpoint is written by."""
    libraries = {
        "torch": str(torch.__version__),
        "lightning": L.__version__,
        "python": platform.python_version(),
    }
    return {"residense": residense.__version__, **libraries}


class AtomicIO(TorchCheckpointIO):
    """Writes beside the target, then renames; the `last.ckpt` before is kept as `last-previous.ckpt`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint | {"versions": versions()}, buffer)
        path = Path(path)
        try:
            write_atomically(
                path, buffer.getbuffer(), previous(path) if path.stem == "last" else None
            )
        except OSError as error:
            resume = (
                f"once that is mended, go on with --run_dir {path.parent.parent} --ckpt_path last"
            )
            raise OSError(error.errno, f"{error.strerror}; {resume}", str(path)) from error

    def load_checkpoint(self, path: str | Path, *args: object, **kwargs: object) -> dict[str, Any]:
        """Read it as all checkpoints are read, which verifies its checksums."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint; never a folder, or another file, that a damaged or hostile checkpoint names."""
        if Path(path).suffix == ".ckpt" and Path(path).is_file():
            Path(path).unlink()


def is_trained(trainer: L.Trainer, checkpoint: dict[str, Any]) -> bool:
    """Whether the limits of the trainer, or early stopping, leave nothing to train after a checkpoint."""
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    steps = checkpoint["global_step"]
    if 0 < (trainer.max_epochs or 0) <= epochs or 0 <= trainer.max_steps <= steps:
        return True
    return (
        stopped_early(checkpoint)
        and epochs >= (trainer.min_epochs or 0)
        and steps >= (trainer.min_steps or 0)
    )


def stopped_early(checkpoint: dict[str, Any]) -> bool:
    """Whether `EarlyStopping` had ended the training; Lightning itself trains one more epoch when it resumes."""
    states = checkpoint["callbacks"].items()
    return any(
        state.get("stopping_reason") for key, state in states if key.startswith("EarlyStopping")
    )


def moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state of a `ModelCheckpoint` with the paths that its files have in `folder`.

    Lightning compares the paths as text and forgets the best scores of a run that was moved, copied or linked. Paths of
    files that are not in `folder` are left out: a checkpoint may name any file, and Lightning removes what it replaces.
    """

    def here(path: str) -> str:
        file = Path(folder) / Path(path).name
        return str(file) if path and file.is_file() else ""

    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    best = {here(path): score for path, score in state["best_k_models"].items()}
    if "" in best:  # of another run
        return state | dict.fromkeys(names, "") | {"best_k_models": {}}
    return (
        state
        | {name: here(state[name]) for name in names}
        | {"best_k_models": best, "dirpath": folder}
    )
