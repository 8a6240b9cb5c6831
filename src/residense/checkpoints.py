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
from residense.arguments import previous
from residense.data.cache import write_atomically


def versions() -> dict[str, str]:
    """Versions that a checkpoint is written by."""
    libraries = {"torch": str(torch.__version__), "lightning": L.__version__, "python": platform.python_version()}
    return {"residense": residense.__version__, **libraries}


class AtomicIO(TorchCheckpointIO):
    """Writes beside the target, then renames; the `last.ckpt` before is kept as `last-previous.ckpt`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint | {"versions": versions()}, buffer)
        path = Path(path)
        try:
            write_atomically(path, buffer.getbuffer(), previous(path) if path.stem == "last" else None)
        except OSError as error:
            resume = f"once that is mended, go on with --run_dir {path.parent.parent} --ckpt_path last"
            raise OSError(error.errno, f"{error.strerror}; {resume}", str(path)) from error
