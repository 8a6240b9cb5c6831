"""What `fit` leaves behind, and how it continues."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from residense.cli import main

from .commands import ROOT


def test_fit_leaves_one_self_contained_run_directory(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    assert fit("--name=mine", "--logger=csv") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (directory,) = (tmp_path / "runs" / "mine").iterdir()
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml",
        "command.txt",
        "git.txt",
        "packages.txt",
        "metrics.csv",
        "test.json",
        "test_confusion.png",
        "predictions.jsonl",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert (
        yaml.safe_load((directory / "config.yaml").read_text())["data"]["init_args"]["synthetic"][
            "size"
        ]
        == 1000
    )
    assert "--name=mine" in (directory / "command.txt").read_text()


@pytest.mark.slow
def test_two_runs_started_together_do_not_meet(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit() == fit() == 0
    assert len(list((tmp_path / "runs" / "dense_ner").iterdir())) == 2


def test_the_resolved_config_repeats_the_run(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--run_dir=first", "--model.encoder.connection=Residual") == 0
    assert main(["fit", "--config=first/config.yaml", "--run_dir=second"]) == 0
    results = [
        json.loads((tmp_path / name / "test.json").read_text()) for name in ("first", "second")
    ]
    assert results[0] == results[1]
    weights = [
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_wandb_is_offline_without_a_key_and_stays_in_the_run_directory(tmp_path: Path) -> None:
    few = [
        "--data.synthetic.size=1000",
        "--trainer.limit_train_batches=2",
        "--trainer.max_epochs=1",
    ]
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "fit",
        "--config=dense_ner.yaml",
        *few,
    ]
    alone = {
        name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
    }  # that of other tests
    done = subprocess.run(
        [*command, "--run_dir=here"], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert list((tmp_path / "here" / "wandb").glob("offline-run-*/*.wandb"))
    assert list(
        (tmp_path / "here" / "wandb").glob("offline-run-*/files/media/table/test/confusion*")
    )
    assert "wandb sync here/wandb" in done.stderr


def test_the_model_beats_looking_entities_up(trained: Path) -> None:
    results = json.loads((trained / "test.json").read_text())
    assert results["f1"] > results["compared"]["dictionary lookup"]["f1"]
    assert results["compared"]["unseen in training"]["support"] > 20


def test_a_run_goes_on_where_it_stopped(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--run_dir=here", "--logger=csv") == 0
    assert main(["fit", "--run_dir=here", "--ckpt_path=last", "--trainer.max_epochs=3"]) == 0
    with (tmp_path / "here" / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["val/f1"]]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert torch.load("here/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["1.0", "3"])
def test_a_resumed_run_trains_on_the_same_batches_at_the_same_rates(
    limit: str, fit: Callable[..., int]
) -> None:
    still = [
        "--model.embeddings.dropout=0",
        "--model.embeddings.word_dropout=0",
        "--model.encoder.branch.dropout=0",
    ]
    steady = [
        "--model.schedule.decay=constant",
        "--model.schedule.warmup=0",
        "--data.synthetic.size=200",
    ]
    options = [*still, *steady, f"--trainer.limit_train_batches={limit}"]
    assert fit("--run_dir=whole", "--trainer.max_epochs=4", *options) == 0
    assert fit("--run_dir=parts", "--trainer.max_epochs=2", *options) == 0
    assert main(["fit", "--run_dir=parts", "--ckpt_path=last", "--trainer.max_epochs=4"]) == 0
    whole, parts = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "parts")
    )
    assert whole["global_step"] == parts["global_step"]
    assert all(
        torch.equal(whole["state_dict"][name], parts["state_dict"][name])
        for name in whole["state_dict"]
    )


def test_continuing_nothing_begins(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--run_dir=here", "--ckpt_path=last") == 0
    assert (tmp_path / "here" / "checkpoints" / "last.ckpt").exists()


def test_a_run_is_not_overwritten(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (trained / "config.yaml").read_bytes()
    assert main(["fit", "--config=dense_ner.yaml", f"--run_dir={trained}"]) == 2
    assert "resume it with --ckpt_path last" in capfd.readouterr().err
    assert (trained / "config.yaml").read_bytes() == before


def test_resuming_with_another_model_is_refused(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [f"--run_dir={trained}", "--ckpt_path=last"]
    assert main(["fit", *options, "--model.optimizer.lr=0.5"]) == 2
    assert "model.optimizer.lr would change" in capfd.readouterr().err
    assert main(["fit", *options, "--model.encoder.connection=Residual"]) == 2
    assert "model.encoder.connection would change" in capfd.readouterr().err
    assert main(["fit", *options, "--data.synthetic.seed=7"]) == 2
    assert "data.synthetic.seed would change" in capfd.readouterr().err


def test_weights_are_taken_over_for_other_labels(
    fit: Callable[..., int], checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.conll").write_text("Anna\tB-WOMAN\nmet\tO\nBob\tB-MAN\n\n" * 5)
    assert fit(f"--init_from={checkpoint}", f"--data.path={tmp_path}", "--run_dir=tuned") == 0
    assert (
        "these start from scratch: head.end_transitions, head.score.bias" in capfd.readouterr().err
    )
    tuned, before = (
        torch.load(path, weights_only=True) for path in ("tuned/checkpoints/last.ckpt", checkpoint)
    )
    assert tuned["vocabulary"]["words"] == before["vocabulary"]["words"]
    assert {"S-MAN", "S-WOMAN"} < set(tuned["vocabulary"]["labels"])


DIVERGING = """
import residense


class Diverging(residense.Plain):
    def end(self, state):
        return state / 0
"""


def test_a_loss_that_is_no_number_ends_the_run(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "diverging.py").write_text(DIVERGING)
    options = [
        "--model.encoder.connection=diverging.Diverging",
        "--model.head=Softmax",
        "--run_dir=run",
    ]
    assert fit(*options, "--trainer.log_every_n_steps=1") == 2
    assert "training diverged: at step 2 train/loss is nan" in capfd.readouterr().err
    assert not list((tmp_path / "run").rglob("best.ckpt"))


def test_the_vectors_are_said(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vectors.txt").write_text("the 1 2 3\n, 1 2 3\nzzz 1 2 3\n")
    assert fit("--data.vectors=vectors.txt", "--test_after_fit=false") == 0
    assert re.search(
        r"vectors\.txt: 3 vectors of width 3; \d+\.\d% of the tokens in training have",
        capfd.readouterr().err,
    )


@pytest.mark.slow
def test_a_sanity_check_leaves_no_trace(fit: Callable[..., int]) -> None:
    histories = []
    for steps in (0, 2):
        options = [
            "--logger=csv",
            "--trainer.max_epochs=2",
            f"--trainer.num_sanity_val_steps={steps}",
        ]
        assert fit(f"--run_dir={steps}", *options) == 0
        with Path(f"{steps}/metrics.csv").open(newline="") as stream:
            histories.append([{**row, "train/tokens_per_s": ""} for row in csv.DictReader(stream)])
    assert histories[0] == histories[1]
