"""The same global batches give the same run on one process and on two, and on batches that are added up."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from residense.cli import main

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "--config=dense_ner.yaml",
    "--logger=csv",
    "--data.synthetic.size=600",
    "--data.batch_tokens=100",
    "--trainer.max_steps=50",
    "--trainer.max_epochs=-1",
    "--trainer.log_every_n_steps=1",
    "--model.embeddings.dropout=0",
    "--model.embeddings.word_dropout=0",
    "--model.encoder.branch.dropout=0",
    "--test_after_fit=false",
]
TWO = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
pytestmark = pytest.mark.slow


def fit(run: Path, *options: str) -> None:
    command = [sys.executable, str(ROOT / "main.py"), "fit", f"--run_dir={run}", *OPTIONS, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def losses(run: Path) -> torch.Tensor:
    with (run / "metrics.csv").open(newline="") as stream:
        return torch.tensor(
            [float(r["train/loss"]) for r in csv.DictReader(stream) if r["train/loss"]]
        ).double()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_two_processes_train_as_one(tmp_path: Path, accumulate: int) -> None:
    exact = ["--trainer.precision=64-true", f"--trainer.accumulate_grad_batches={accumulate}"]
    fit(tmp_path / "one", *exact)
    fit(tmp_path / "two", *exact, *TWO)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 50
    torch.testing.assert_close(two, one, rtol=0, atol=1e-9)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-6, atol=1e-8)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    options = [
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=4",
        f"--run_dir={tmp_path / 'run'}",
    ]
    options += ["--ema.decay=0.9"]
    assert main(["fit", *OPTIONS[:4], *options]) == 0
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "fit",
        *OPTIONS[:4],
        *options,
        "--ckpt_path=last",
        *TWO,
    ]
    done = subprocess.run(
        [*command, "--trainer.max_epochs=2"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (
        "saved by 1 processes, resumed by 2: the random numbers of dropout start anew"
        in done.stderr
    )
    assert (
        torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        == 8
    )


def test_two_processes_have_one_run_directory(tmp_path: Path) -> None:
    few = [*OPTIONS, "--trainer.max_steps=2"]
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "fit",
        *few,
        "--trainer=trainer/ddp.yaml",
        *TWO,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "dense_ner").iterdir()
    assert (run / "checkpoints" / "last.ckpt").exists()
