"""Checkpoints that are damaged, of another version or of another model."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import residense
from residense.cli import main
from residense.run.checkpoint_io import read as read_checkpoint

from .commands import predict


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_checkpoint_is_refused(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    assert main(["predict", f"--ckpt_path={tmp_path / 'bad.ckpt'}", "--data.text=x"]) == 2
    assert "cannot be loaded as a checkpoint" in capfd.readouterr().err


def test_a_truncated_or_foreign_checkpoint_is_refused(
    checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.ckpt").write_bytes(Path(checkpoint).read_bytes()[:-1000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    for name, expected in (
        ("cut", "cannot be loaded"),
        ("foreign", "not a checkpoint of this project"),
    ):
        assert main(["test", f"--ckpt_path={tmp_path / name}.ckpt"]) == 2
        assert expected in capfd.readouterr().err


def test_a_checkpoint_of_other_layers_is_refused_in_a_line(
    checkpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", f"--ckpt_path={checkpoint}", "--model.encoder.depth=3"]) == 2
    assert "the checkpoint does not fit this model" in capfd.readouterr().err


def test_a_checkpoint_says_which_versions_wrote_it(checkpoint: str) -> None:
    versions = {
        "torch": str(torch.__version__),
        "lightning": L.__version__,
        "python": platform.python_version(),
    }
    assert read_checkpoint(checkpoint).content.get("versions") == {
        "residense": residense.__version__,
        **versions,
    }


def unknown_option(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["init_args"]["encoder"]["init_args"]["wings"] = 2


def unknown_class(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["init_args"]["head"]["class_path"] = "residense.nn.heads.Gone"


def missing_field(content: dict[str, Any]) -> None:
    del content["vocabulary"]["subwords"]


def unknown_field(content: dict[str, Any]) -> None:
    content["vocabulary"]["wings"] = 2


CHANGES = {
    unknown_option: "model.encoder: there is no option wings",
    unknown_class: "model.head: module 'residense.nn.heads' has no attribute 'Gone'",
    missing_field: "its vocabulary differs in 'subwords'",
    unknown_field: "its vocabulary differs in 'wings'",
}


@pytest.mark.parametrize(("change", "difference"), CHANGES.items())
@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"versions": {"residense": "9.8.7"}}, "saved by residense 9.8.7"),
        ({}, "saved by residense unknown"),
    ],
)
def test_a_checkpoint_of_another_version_says_what_does_not_fit(
    change: Callable[[dict[str, Any]], None],
    difference: str,
    versions: dict[str, Any],
    said: str,
    checkpoint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content, path = torch.load(checkpoint, weights_only=True), tmp_path / "other.ckpt"
    content.pop("versions", None)
    change(content)
    torch.save(content | versions, path)
    assert main(["predict", f"--ckpt_path={path}", "--data.text=Anna"]) == 2
    reader = f"read by residense {residense.__version__}"
    assert capfd.readouterr().err == f"error: {path}: {difference} ({said}, {reader})\n"


@pytest.mark.parametrize(("version", "age"), [(None, "an older"), (0, "an older"), (2, "a newer")])
def test_a_checkpoint_of_another_format_is_refused(
    version: int | None,
    age: str,
    checkpoint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["format"] = version
    if version is None:
        del content["format"]
    torch.save(content, tmp_path / "other.ckpt")
    assert main(["predict", f"--ckpt_path={tmp_path}/other.ckpt", "--data.text=Anna"]) == 2
    assert f"other.ckpt: a checkpoint of {age} format; use the version" in capfd.readouterr().err


def test_a_checkpoint_without_versions_that_fits_is_used(
    checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content.pop("versions", None)
    torch.save(content, tmp_path / "older.ckpt")
    text = "--data.text=Anna met Bob"
    assert predict(capfd, f"--ckpt_path={tmp_path / 'older.ckpt'}", text) == predict(
        capfd, f"--ckpt_path={checkpoint}", text
    )
