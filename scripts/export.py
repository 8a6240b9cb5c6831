"""Write the weights of a checkpoint as safetensors, which other programs read and which hold no code.

    python scripts/export.py runs/dense_ner/RUN/checkpoints/best.ckpt tagger.safetensors

The file says what it is: its metadata hold the configuration of the model and the vocabulary, as JSON. Weights that
layers share are written under each of their names.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from residense.atomic import write_atomically
from residense.errors import UsageError
from residense.run.checkpoint_io import read


def export(source: Path, target: Path) -> int:
    """Write `target`; the number of weights.

    Raises:
        UsageError: there is no checkpoint, no folder to write to, or no library.
    """
    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        raise UsageError("safetensors is missing: pip install -e '.[export]'") from None
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{target} is not a file in a folder that exists")
    checkpoint = read(source)
    described = {
        "model": checkpoint.settings["model"],
        "vocabulary": asdict(checkpoint.vocabulary),
    }
    metadata = {"format": "pt"} | {name: json.dumps(content) for name, content in described.items()}
    # safetensors takes weights unless two names share their memory
    weights = {
        name: weight.clone(memory_format=torch.contiguous_format)
        for name, weight in checkpoint.weights.items()
    }
    write_atomically(target, save(weights, metadata))
    return len(weights)


def main() -> None:
    """Read the command line, write, say so."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        count = export(Path(sys.argv[1]), Path(sys.argv[2]))
    except (UsageError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{sys.argv[2]}: {count} weights, with the configuration of the model and its vocabulary")


if __name__ == "__main__":
    main()
