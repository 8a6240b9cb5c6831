"""What SECURITY.md promises."""

import gzip
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from residense.cli import main
from residense.data.readers import read
from residense.data.readers.file import CorpusError, File
from residense.data.readers.hub import load_splits
from residense.data.vectors import load_vectors
from residense.errors import UsageError
from residense.run.checkpoint_io import read as read_checkpoint
from residense.settings.arguments import arrange

ROOT = Path(__file__).parents[2]
SECRETS = {
    "WANDB_API_KEY": "5ec4e7" * 7,
    "HF_TOKEN": "hf_5ec4e7token",
    "MY_PASSWORD": "5ec4e7password",
}


class Command:
    """Makes a directory where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "callbacks"])
def test_code_in_a_checkpoint_is_not_run(
    place: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    content[place]["x"] = Command()
    torch.save(content, "evil.ckpt")
    for command in (["test"], ["predict", "--data.text=x"]):
        assert main([*command, "--ckpt_path=evil.ckpt"]) == 2
        assert "evil.ckpt: cannot be loaded as a checkpoint" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


def test_nothing_loads_checkpoints_with_their_code() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    assert "weights_only=False" not in text and "trust_remote_code" not in text
    assert not re.search(
        r"^(import|from) (pickle|dill|joblib|shelve)\b",
        text.replace("import pickle\nimport platform", ""),
        re.M,
    )
    loads = re.findall(r"torch\.load\(.*", text)
    assert loads and all("weights_only=True" in load for load in loads)


def test_a_directory_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"a pickle")
    with pytest.raises(UsageError, match="no checkpoint"):
        arrange("test", [f"--ckpt_path={tmp_path}"])
    with pytest.raises(UsageError, match="no checkpoint"):
        read_checkpoint(tmp_path)


FIRST = ("model", "model.encoder.block", "trainer.callbacks")  # the others are slow
WITNESS = """
import pathlib


class Witness:
    def __init__(self, *args, **kwargs):
        pathlib.Path("was_made").touch()


def function(*args, **kwargs):
    pathlib.Path("was_made").touch()
"""
PLACES = [
    "model",
    "data",
    "model.embeddings",
    "model.encoder",
    "model.encoder.block",
    "model.encoder.connection",
]
PLACES += [
    "model.encoder.branch",
    "model.encoder.transition",
    "model.head",
    "model.optimizer",
    "model.schedule",
]
PLACES += [
    "trainer.logger",
    "trainer.callbacks",
    "trainer.strategy",
    "trainer.profiler",
    "trainer.plugins",
]


@pytest.mark.parametrize(
    "place", [pytest.param(p, marks=[pytest.mark.slow] * (p not in FIRST)) for p in PLACES]
)
def test_what_is_no_part_is_not_made(
    place: str, fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil_witness.py").write_text(WITNESS)
    for name in ("Witness", "function"):
        assert fit(f"--{place}=evil_witness.{name}") == 2
    assert capsys.readouterr().err.count("error: ") == 2
    assert not (tmp_path / "was_made").exists() and not (tmp_path / "runs").exists()


def test_a_class_in_a_checkpoint_is_no_other(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_witness.py").write_text(WITNESS)
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["class_path"] = "evil_witness.Witness"
    torch.save(content, "evil.ckpt")
    assert main(["predict", "--ckpt_path=evil.ckpt", "--data.text=x"]) == 2
    assert not (tmp_path / "was_made").exists()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A kilobyte for each megabyte."""
    return gzip.compress(b"a" * (100 << 20), 9)


def test_a_bomb_is_refused(bomb: bytes, tmp_path: Path) -> None:
    for name in ("corpus.conll.gz", "corpus.jsonl.gz"):
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(CorpusError, match=rf"{name}: unpacks to far more than text does"):
            read(File(tmp_path / name))
    (tmp_path / "vectors.txt.gz").write_bytes(bomb)
    with zipfile.ZipFile(tmp_path / "vectors.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.txt", b"a" * (100 << 20))
    for name in ("vectors.txt.gz", "vectors.zip"):
        with pytest.raises(ValueError, match=rf"{name}: unpacks to far more than text does"):
            load_vectors(tmp_path / name)


def test_what_packs_well_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "corpus.conll.gz").write_bytes(
        gzip.compress(b"Anna\tB-PER\nsleeps\tO\n\n" * 40_000)
    )  # 1 : 300
    assert len(read(File(tmp_path / "corpus.conll.gz"))) == 40_000


@pytest.mark.parametrize("name", ["../vectors.txt", "/vectors.txt", "a/../../vectors.txt"])
def test_nothing_is_unpacked_onto_the_disk(name: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with zipfile.ZipFile(tmp_path / "deep" / "archive.zip", "w") as archive:
        archive.writestr(name, "word 1 2\n")
    assert load_vectors(tmp_path / "deep" / "archive.zip").words == ["word"]
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "archive.zip"]


LAUGHS = "a: &a [x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{m}'] * 10)}]\n" for m, n in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LAUGHS, "aliases expand"),
        ("a: &a [*a]", "aliases expand"),
        ("a: " + "[" * 5000, "nested too deeply"),
    ],
    ids=["laughs", "itself", "depth"],
)
def test_a_config_that_expands_is_refused(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bomb.yaml").write_text(content)
    assert main(["fit", f"--config={tmp_path}/bomb.yaml"]) == 2
    assert said in capsys.readouterr().err


def test_the_hub_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, **options: asked.append(options) or {"train": []}
    )
    load_splits("user/corpus")
    assert asked == [{}]


def test_a_run_stays_in_its_directory(fit: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    os.chdir(tmp_path / "here")
    assert fit("--name=../../outside", "--test_after_fit=false") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [path.name for path in (tmp_path / "here" / "runs").iterdir()] == ["_.._outside"]


@pytest.mark.slow
def test_secrets_are_written_nowhere(tmp_path: Path) -> None:
    few = ["--data.synthetic.size=300", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    for words in (
        ["init"],
        ["remote", "add", "origin", "https://ada:5ec4e7token@example.org/project.git"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    environment = {**os.environ, **SECRETS, "WANDB_MODE": "offline"}
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "fit",
        "--config=dense_ner.yaml",
        "--run_dir=run",
        *few,
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=True
    )
    written = [path for path in tmp_path.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert any(path.suffix == ".wandb" for path in written)
    for content in (done.stdout, done.stderr, *(path.read_bytes() for path in written)):
        assert b"5ec4e7" not in content
