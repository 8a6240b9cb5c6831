"""The command `export`: write the weights of a checkpoint as safetensors, which contain no code."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from residense.atomic import write_atomically
from residense.errors import UsageError
from residense.run.checkpoint_io import read
from residense.run.trainer import check_output

USAGE = "export takes two files: main.py export path/to/best.ckpt weights.safetensors"


def export(words: Sequence[str]) -> None:
    """Write the weights of a checkpoint as safetensors.

    The settings of the model and its vocabulary become the metadata of the file, as JSON. Weights
    that layers share are written under each of their names.

    Args:
        words: Checkpoint and file to write.

    Raises:
        UsageError: There is no checkpoint, no folder to write to, or no safetensors.
    """
    if len(words) != 2 or words[0].startswith("-"):
        raise UsageError(USAGE)
    source, target = words
    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        raise UsageError("safetensors is missing: pip install -e '.[export]'") from None
    check_output(target)
    checkpoint = read(source)
    metadata = {
        "format": "pt",
        "model": json.dumps(checkpoint.settings["model"]),
        "vocabulary": json.dumps(asdict(checkpoint.vocabulary)),
    }
    # safetensors takes weights unless two names share their memory
    weights = {
        name: weight.clone(memory_format=torch.contiguous_format)
        for name, weight in checkpoint.weights.items()
    }
    write_atomically(Path(target), save(weights, metadata))
    print(f"{target}: {len(weights)} weights, with the settings of the model and its vocabulary")
