"""Configs are found by name, their fragments from wherever they lie, and none is larger than a config can be."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from residense.cli import main
from residense.errors import UsageError
from residense.run.checkpoint_io import read as read_checkpoint
from residense.settings import configs

ROOT = Path(__file__).parents[2]
FEW = [
    "--run_dir=run",
    "--logger=none",
    "--test_after_fit=false",
    "--data.synthetic.size=60",
    "--trainer.max_epochs=1",
]


@pytest.mark.parametrize(
    "place",
    [
        "mine.yaml",
        *(
            pytest.param(f"{folder}/mine.yaml", marks=pytest.mark.slow)
            for folder in ("a/b", "configs/c")
        ),
    ],
)
def test_a_copy_of_a_config_works_anywhere(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / place
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text((ROOT / "configs" / "dense_ner.yaml").read_text())
    assert main(["fit", f"--config={place}", *FEW]) == 0
    assert "residense.LSTM" in Path("run/config.yaml").read_text()


def resolved(text: str, folder: Path) -> Any:
    """The content of a config in a folder, as the parser has it."""
    with pytest.MonkeyPatch.context() as patch:
        configs.install(None)
        patch.chdir(folder)  # the parser stands beside the config that it reads
        from jsonargparse import get_loader

        return get_loader("yaml")(text)


def test_a_fragment_is_looked_up_beside_the_config_then_here_then_in_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    beside, here, mine = (
        tmp_path / "beside" / "block",
        tmp_path / "block",
        tmp_path / "configs" / "block",
    )
    expected = ROOT / "configs" / "block" / "gru.yaml"
    for folder in (None, mine, here, beside):
        if folder is not None:
            folder.mkdir(parents=True)
            expected = folder / "gru.yaml"
            expected.write_text("class_path: residense.GRU\n")
        tmp_path.joinpath("beside").mkdir(exist_ok=True)
        found = resolved("a: {b: [block/gru.yaml]}\nc: no.yaml", tmp_path / "beside")
        assert (found["a"]["b"], found["c"]) == ([str(expected)], "no.yaml")


def test_a_fragment_that_is_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        (ROOT / "configs/dense_ner.yaml").read_text().replace("block/lstm", "block/lstn")
    )
    assert main(["fit", "--config=mine.yaml", *FEW]) == 2
    expected = "model.encoder.block: there is no class, file or value block/lstn.yaml"
    assert f"mine.yaml:17: {expected}" in capsys.readouterr().err


ALIASES = "a: &a [x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in pairwise("abcdefghi")
)
BOMBS = {
    "aliases": (ALIASES, "its aliases expand to more than 100,000 values"),
    "itself": ("a: &a [*a]", "its aliases expand"),
    "long strings": (f"a: &a {'x' * 50_000}\nb: [*a, *a, *a]", "its aliases expand"),
    "depth": ("a: " + "[" * 5000, "nested too deeply"),
    "size": ("a: [" + "x, " * 50_000 + "]", "more than 100,000 characters"),
    "number": ("a: " + "9" * 5000, "digits"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("route", ["config", "fragment", "option"])
def test_what_expands_beyond_measure_is_refused(
    route: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb, message = BOMBS[name]
    Path("bomb.yaml").write_text(bomb)
    if route == "config":
        assert main(["fit", "--config=bomb.yaml"]) == 2
        assert f"bomb.yaml: not YAML: {message}" in capsys.readouterr().err or name in (
            "number",
            "size",
        )
    elif route == "fragment":
        Path("whole.yaml").write_text("model: bomb.yaml\ndata: data/synthetic_en.yaml\n")
        assert main(["fit", "--config=whole.yaml"]) == 2
    else:
        assert main(["fit", "--config=dense_ner.yaml", f"--model.encoder={bomb}"]) == 2
    assert not Path("runs").exists()


def test_shared_settings_of_a_checkpoint_are_counted_each_time(
    checkpoint: str, tmp_path: Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    shared: list[Any] = ["x"]
    for _ in range(40):
        shared = [shared, shared]
    for part in ("hyper_parameters", "datamodule_hyper_parameters", "vocabulary"):
        torch.save({**content, part: {**content[part], "words": shared}}, tmp_path / "bomb.ckpt")
        with pytest.raises(UsageError, match="its settings or weights have other types or sizes"):
            read_checkpoint(tmp_path / "bomb.ckpt")


def test_a_weight_larger_than_its_file_is_refused(checkpoint: str, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["vast"] = torch.zeros(1).expand(2**40)
    torch.save(content, tmp_path / "bomb.ckpt")
    with pytest.raises(UsageError, match="its settings or weights have other types or sizes"):
        read_checkpoint(tmp_path / "bomb.ckpt")


def test_a_size_counts_what_is_shared_each_time() -> None:
    shared = ["a", "bc"]
    assert configs.size([shared, shared, {"k": shared}]) == 1 + 3 * (1 + 2 + 3) + 1 + 2
    assert configs.size(yaml.safe_load("{a: 1}")) == 1 + 2 + 1


def test_one_flipped_bit_is_noticed_by_every_command(
    checkpoint: str, tmp_path: Path, fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(Path(checkpoint).read_bytes())
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    place = bytes(data).find(max(weights.values(), key=torch.numel).numpy().tobytes()[4096:8192])
    assert place > 0
    data[place + 17] ^= 4
    Path("flipped.ckpt").write_bytes(data)
    for command in (["test"], ["validate"], ["predict", "--data.text=x"]):
        assert main([*command, "--ckpt_path=flipped.ckpt"]) == 2
    assert fit("--init_from=flipped.ckpt") == 2
    errors = capsys.readouterr().err
    assert (
        errors.count("flipped.ckpt: cannot be loaded as a checkpoint")
        == errors.count("in it is damaged")
        == 4
    )
