"""Saving checkpoints atomically, and reading them without running code that they contain.

Lightning writes a checkpoint to $TMPDIR first: if that is another filesystem, a full disk leaves a
damaged file in place of the old one.
"""

import io
import pickle
import platform
import re
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

import residense
from residense.atomic import write_atomically
from residense.data.vocabulary import Vocabulary
from residense.errors import UsageError
from residense.messages import say
from residense.run.checkpoints import FORMAT, REQUIRED, SETTINGS, TYPES, Checkpoint
from residense.settings import configs


class AtomicIO(TorchCheckpointIO):
    """Saves checkpoints atomically, and keeps the `last.ckpt` before as `last-previous.ckpt`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Save a checkpoint, for Lightning; an error says how to resume."""
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint | {"format": FORMAT, "versions": versions()}, buffer)
        older = previous(path) if path.stem == "last" else None
        try:
            write_atomically(path, buffer.getbuffer(), older)
        except OSError as error:
            resume = f"--run_dir {path.parent.parent} --ckpt_path last"
            message = f"{error.strerror}; once that is fixed, resume with {resume}"
            raise OSError(error.errno, message, str(path)) from error

    def load_checkpoint(self, path: str | Path, *args: object, **kwargs: object) -> dict[str, Any]:
        """Read a checkpoint, for Lightning."""
        return {**read(path).content}

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, never a folder or another file, which a hostile one may name."""
        if Path(path).suffix == ".ckpt" and Path(path).is_file():
            Path(path).unlink()


def versions() -> dict[str, str]:
    """Return the versions that a checkpoint is saved by."""
    return {
        "residense": residense.__version__,
        "torch": str(torch.__version__),
        "lightning": L.__version__,
        "python": platform.python_version(),
    }


def previous(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def newest(path: Path, best: Path) -> Path:
    """Return the checkpoint at `path`, or the one before if it is damaged, or the best one.

    Args:
        path: The checkpoint.
        best: What to resume from if there is neither.

    Raises:
        UsageError: The checkpoint and the one before are damaged.
    """
    older = previous(path)
    has_best = best.exists() and path != best
    if not path.exists() and not older.exists():
        if not has_best:
            return path
        say(f"no {path}: resuming from {best}")  # the run ended between its first two saves
        return best
    try:
        read(path)
        return path
    except UsageError as error:
        if not older.exists():
            hint = f"; try {best}: --ckpt_path best" if has_best else ""
            raise UsageError(f"{error}, and there is none before it{hint}") from None
        say(f"{error}; resuming from the one before, {older}")
    read(older)
    return older


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running code that it may contain, and verify its checksums.

    Raises:
        UsageError: The file is damaged, or not a checkpoint of this project and format.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no checkpoint {path}")
    try:
        content = _load(path)
    except Exception as error:  # torch raises any error on damaged files
        first = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]
        reason = first[:120] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = "it contains more than tensors and settings"
        raise UsageError(f"{path}: cannot be loaded as a checkpoint ({reason})") from None
    if fault := _fault(content, path.stat().st_size):
        raise UsageError(f"{path}: {fault}")
    return Checkpoint(content)


def _load(path: Path) -> Any:
    """Load the content; torch itself ignores checksums and decompresses."""
    if not zipfile.is_zipfile(path):
        raise ValueError("not a complete ZIP file")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is damaged")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _fault(content: Any, file_size: int) -> str:
    """Return why this version cannot use a file as a checkpoint; empty if it can."""
    foreign = "not a checkpoint of this project"
    if not isinstance(content, dict):
        return f"{foreign}, it is not a dictionary"
    if missing := REQUIRED - {"format"} - content.keys():
        return f"{foreign}, it lacks {', '.join(sorted(missing))}"
    if content.get("format") != FORMAT:
        older = "an older" if content.get("format", 0) in range(FORMAT) else "a newer"
        return f"a checkpoint of {older} format; use the version of residense that saved it"
    if not _is_sound(content, file_size):
        return f"{foreign}, its settings or weights have other types or sizes"
    if other := {field.name for field in fields(Vocabulary)} ^ content["vocabulary"].keys():
        names = ", ".join(sorted(map(ascii, other)))
        return f"its vocabulary differs in {names[:80]}{Checkpoint(content).saved_by()}"
    return ""


def _is_sound(content: dict[str, Any], file_size: int) -> bool:
    """Return whether all entries have their types, and fit into a file of this size."""
    if not all(isinstance(content[key], TYPES[key]) for key in TYPES.keys() & content.keys()):
        return False
    settings = [content[key] for key in SETTINGS.values()]
    weights = list(content["state_dict"].values())
    if not all(isinstance(part.get("class_path"), str) for part in settings):
        return False
    if not all(isinstance(weight, torch.Tensor) for weight in weights):
        return False
    sizes = [weight.numel() * weight.element_size() for weight in weights]
    if max(sizes, default=0) > file_size:  # an expanded tensor
        return False
    try:
        is_bounded = configs.size(settings) <= configs.LARGEST
    except RecursionError:
        return False
    return is_bounded and _is_flat(content["vocabulary"])


def _is_flat(vocabulary: dict[str, Any]) -> bool:
    """Return whether a vocabulary contains plain values, and lists and dicts of them."""
    parts = [[*v, *v.values()] if isinstance(v, dict) else v for v in vocabulary.values()]
    values = (value for part in parts for value in (part if isinstance(part, list) else [part]))
    return all(isinstance(value, str | int | float | None) for value in values)
