"""Classes in the user's own files."""

import inspect
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import residense
from residense.cli import main

from .commands import ROOT, predict

README = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "docs" / "extending.md").read_text()

BROKEN = """
class Broken(Gated):
    def read(self, state, i, mask):
        return state


class Needy(Gated):
    def __init__(self, layout: Layout, gain: float):
        super().__init__(layout)


class Wide(residense.Block):
    def forward(self, x, *, mask):
        return x.new_zeros(*x.shape[:2], 2 * self.out_dim)
"""


def test_a_connection_of_ones_own_is_a_class_in_a_file(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    example = README.split("```python\n# my_connections.py\n")[1].split("```")[0]
    shown = (
        inspect.cleandoc(residense.Connection.__doc__ or "")
        .split("gates:\n\n")[1]
        .split("\n\nArgs:")[0]
    )
    assert textwrap.dedent(shown) in example
    example = f"import residense\n{example}"
    (tmp_path / "my_own_connections.py").write_text(example + BROKEN)
    own = "--model.encoder.connection=my_own_connections"
    assert fit(f"{own}.Gated", "--model.encoder.connection.start=0.1", "--run_dir=here") == 0
    predict = ["predict", "--ckpt_path=best", "--run_dir=here", "--data.text=Anna"]
    assert main(predict) == 2 and "add --trust my_own_connections" in capfd.readouterr().err
    assert main([*predict, "--trust=my_own_connections"]) == 0
    assert (
        tmp_path / "here" / "own_code" / "my_own_connections.py"
    ).read_text() == example + BROKEN
    (tmp_path / "bad_syntax.py").write_text("class A(object)\n    pass\n")
    for value, expected in {
        f"{own}.Gatd": "module 'my_own_connections' has no attribute 'Gatd'",
        f"{own[:-1]}.Gated": "No module named 'my_own_connection'",
        f"{own}.py": "Invalid content in sub-config file my_own_connections.py",
        f"{own}.Needy": "the following arguments are required: gain",
        "--model.encoder.connection=bad_syntax.A": "bad_syntax.py:1: expected ':'",
        "--model.encoder.connection=collections.Counter": "collections.Counter cannot be used here",
    }.items():
        capfd.readouterr()
        assert fit(value) == 2
        assert expected in capfd.readouterr().err
    # mistakes in code keep their tracebacks
    with pytest.raises(ValueError, match="too many values to unpack"):
        fit(f"{own}.Broken")
    with pytest.raises(ValueError, match="Wide returned a tensor of shape"):
        fit("--model.encoder.block=my_own_connections.Wide")


def example(name: str) -> str:
    """A file of docs/extending.md."""
    return EXTENDING.split(f"```python\n# {name}\n")[1].split("```")[0]


@pytest.mark.slow
def test_a_corpus_format_of_ones_own_is_a_class_in_a_file(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_corpora.py").write_text(example("my_corpora.py"))
    (tmp_path / "corpus").mkdir()
    for name in ("train", "dev", "test"):
        (tmp_path / "corpus" / f"{name}.txt").write_text("Anna/B-PER sleeps/O ./O\n" * 20)
    assert fit("--data=my_corpora.SlashTags", "--data.folder=corpus", "--run_dir=here") == 0
    shutil.rmtree(tmp_path / "corpus")  # not needed to predict
    used = ["--run_dir=here", "--ckpt_path=best", "--trust=my_corpora"]
    capfd.readouterr()
    (record,) = predict(capfd, *used, "--data.text=Anna sleeps.")
    assert record["text"] == "Anna sleeps."


@pytest.mark.slow
def test_a_task_of_ones_own_is_a_class_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_tasks.py").write_text(example("my_tasks.py"))
    options = ["--model=my_tasks.EndsClassifier", "--trainer.fast_dev_run=true", "--logger=none"]
    assert main(["fit", "--config=dense_cls.yaml", "--data.synthetic.size=200", *options]) == 0


def test_a_checkpoint_is_used_by_another_class(
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "shouting.py").write_text(SHOUTING)
    monkeypatch.chdir(tmp_path)
    (plain,) = predict(capfd, f"--ckpt_path={checkpoint}", "--data.text=Anna Smith")
    (other,) = predict(
        capfd, f"--ckpt_path={checkpoint}", "--data.text=Anna Smith", "--model=shouting.Shouting"
    )
    assert other == plain | {"loud": True}


SHOUTING = """
from residense import Tagger


class Shouting(Tagger):
    def records(self, *given):
        return ({**record, "loud": True} for record in super().records(*given))
"""

COMPILED = """
from residense import Tagger


class Compiled(Tagger):
    def __init__(self, vocabulary, **options):
        super().__init__(vocabulary, **options)
        self.encoder.compile(backend="eager", dynamic=True)
"""


@pytest.mark.slow
def test_a_compiled_encoder_keeps_the_names_of_its_weights(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compiled.py").write_text(COMPILED)
    options = ["--model.encoder.block=block/conv.yaml", "--logger=csv"]
    assert fit("--model=compiled.Compiled", "--run_dir=here", *options) == 0
    assert not [
        name
        for name in torch.load("here/checkpoints/best.ckpt")["state_dict"]
        if "_orig_mod" in name
    ]
    capfd.readouterr()
    options = ["--run_dir=here", "--ckpt_path=best", "--trust=compiled", "--data.text=Anna"]
    assert predict(capfd, *options) == predict(capfd, *options, "--model=Tagger")


WITNESS = """
import lightning as L


class Witness(L.Callback):
    def __init__(self, name: str):
        self.name = name

    def on_fit_end(self, trainer, pl_module):
        open(self.name, "w").close()
"""


def test_callbacks_are_added_to_those_there_are(fit: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "witness.py").write_text(WITNESS)
    for name in ("one", "two"):
        callback = {"class_path": "witness.Witness", "init_args": {"name": name}}
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"trainer": {"callbacks+": [callback]}})
        )
    assert (
        fit("--config=dense_ner.yaml", "--config=one.yaml", "--config=two.yaml", "--run_dir=here")
        == 0
    )
    assert all(
        Path(name).exists()
        for name in ("one", "two", "here/checkpoints/best.ckpt", "here/checkpoints/last.ckpt")
    )


COPIES = {
    "src/residense/nn/blocks/conv.py": "--model.encoder.block=copied.Conv",
    "src/residense/nn/connections/residual.py": "--model.encoder.connection=copied.Residual",
    "src/residense/tasks/tagging.py": "--model=copied.Tagger",
    "src/residense/data/tagging.py": "--data=copied.TaggingDataModule",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", COPIES)
def test_a_copied_file_is_a_part_of_ones_own(source: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / source, tmp_path / "copied.py")
    few = [
        "--data.synthetic.size=300",
        "--trainer.limit_train_batches=2",
        "--trainer.max_epochs=1",
        "--run_dir=run",
    ]
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "fit",
        "--config=dense_ner.yaml",
        COPIES[source],
        *few,
    ]
    subprocess.run([*command, "--logger=none"], cwd=tmp_path, check=True, capture_output=True)
    best = [
        sys.executable,
        str(ROOT / "main.py"),
        "predict",
        "--ckpt_path=run/checkpoints/best.ckpt",
        "--trust=copied",
        "--data.text=Anna",
    ]
    assert (
        json.loads(subprocess.run(best, cwd=tmp_path, check=True, capture_output=True).stdout)[
            "text"
        ]
        == "Anna"
    )
    assert "copied." in (tmp_path / "run" / "config.yaml").read_text()
