"""Weights leave as safetensors: all of them, bit for bit, with all that says what they are."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from residense.cli import main
from residense.run.checkpoints import Checkpoint


def export(*words: object) -> int:
    return main(["export", *map(str, words)])


def test_weights_are_those_of_the_checkpoint(tmp_path: Path, fit: Callable[..., int]) -> None:
    assert (
        fit("--config=idcnn_ner.yaml", "--model.encoder.depth=6", "--run_dir=run") == 0
    )  # its layers share weights
    source, target = (
        tmp_path / "run" / "checkpoints" / "last.ckpt",
        tmp_path / "weights.safetensors",
    )
    export(source, target)
    checkpoint = torch.load(source, weights_only=True)
    with safe_open(target, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert len({weight.data_ptr() for weight in checkpoint["state_dict"].values()}) < len(found)
    assert found.keys() == checkpoint["state_dict"].keys()
    for name, weight in checkpoint["state_dict"].items():
        assert torch.equal(found[name], weight)
    assert json.loads(metadata["model"]) == Checkpoint(checkpoint).settings["model"]
    assert json.loads(metadata["vocabulary"]) == checkpoint["vocabulary"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "weights.safetensors"]


def damaged(path: Path) -> Path:
    path.write_bytes(b"no checkpoint")
    return path


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            lambda folder: folder / "missing.ckpt",
            "weights.safetensors",
            r"^error: no checkpoint .*missing.ckpt$",
        ),
        (
            lambda folder: damaged(folder / "a.ckpt"),
            "weights.safetensors",
            r"^error: .*a.ckpt: .*checkpoint[^\n]*$",
        ),
        (
            lambda folder: damaged(folder / "a.ckpt"),
            "missing/weights.safetensors",
            "^error: .*a folder that exists$",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    source: Callable[[Path], Path],
    target: str,
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = source(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert export(path, tmp_path / target) == 2
    assert re.search(message, capfd.readouterr().err, re.M)
    assert sorted(tmp_path.iterdir()) == before
