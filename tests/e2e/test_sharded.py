"""Weights split over processes: the same run as on one, the same checkpoints, and a word on what cannot be split."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from residense.cli import main
from residense.data.vocabulary import Vocabulary
from residense.nn.blocks import FeedForward
from residense.tasks.base import Task

from .test_distributed import OPTIONS, ROOT, losses, weights

SHARDED = ["--trainer=trainer/sharded.yaml", *OPTIONS]
REFUSED = {
    "--ema.decay=0.9": "sharded weights have no average: leave --ema.decay out, or use --trainer.strategy ddp",
    "--trainer.strategy.save_distributed_checkpoint=true": "--trainer.strategy.save_distributed_checkpoint false",
    "--trainer.precision=64-true": "trainer: The `ModelParallelStrategy` does not support",
}


def start(run: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "main.py"), "fit", f"--run_dir={run}", *SHARDED, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def fit(run: Path, *options: str) -> None:
    process = start(run, *options)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


# -- what is said before anything is written ------------------------------------------------------------------------


@pytest.mark.parametrize("option", REFUSED)
def test_what_sharding_cannot_do_is_refused(
    option: str, tmp_path: Path, fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--trainer=trainer/sharded.yaml", option) == 2
    message = capsys.readouterr().err
    assert REFUSED[option] in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_without_sharding_does_not_go_on_with_it(
    tmp_path: Path, fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--run_dir=run") == 0
    files = sorted(tmp_path.rglob("*"))
    assert fit("--run_dir=run", "--ckpt_path=last", "--trainer=trainer/sharded.yaml") == 2
    assert "last.ckpt is of a run without sharding" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == files


# -- how a task is split --------------------------------------------------------------------------------------------


class Small(Task):
    """A block, and weights around it."""

    def __init__(self) -> None:
        super().__init__(Vocabulary(["a", "b", "c"], ["a"], ["O"], "none", "word"))
        self.table = nn.Embedding(5, 4)
        self.block = FeedForward(4, 4)


class Scalar(Small):
    """... one of which has no dimension to split."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of two processes, the second of which is not there."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (1, 2), mesh_dim_names=("data_parallel", "tensor_parallel"))
    torch.distributed.destroy_process_group()


def sharded(task: Task, mesh: DeviceMesh) -> Task:
    task._device_mesh = mesh
    task.configure_model()
    return task


def test_all_weights_are_split_once(mesh: DeviceMesh) -> None:
    task = sharded(Small(), mesh)
    before = dict(task.named_parameters())
    task.configure_model()
    for name, weight in task.named_parameters():
        assert isinstance(weight, DTensor) and weight is before[name]
        assert weight.to_local().numel() * 2 in (
            weight.numel(),
            weight.numel() + weight[:1].numel(),
        )


def test_a_weight_without_dimensions_is_refused(mesh: DeviceMesh) -> None:
    with pytest.raises(ValueError, match=r"^trainer.strategy: .*Change gate to a 1D tensor"):
        sharded(Scalar(), mesh)


# -- real runs on two processes -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "accumulate", "steps"), [("lstm", 1, 50), ("transformer", 3, 20)]
)
def test_two_sharded_processes_train_as_one(
    tmp_path: Path, block: str, accumulate: int, steps: int
) -> None:
    one, two, later = (tmp_path / name for name in ("one", "two", "later"))
    options = [
        f"--model.encoder.block=block/{block}.yaml",
        f"--trainer.accumulate_grad_batches={accumulate}",
    ]
    options += [f"--trainer.max_steps={steps}", "--trainer.val_check_interval=0.5"]
    double = (
        "--trainer.plugins+=lightning.pytorch.plugins.DoublePrecision"  # as an option it is refused
    )
    fit(two, *options, double, "--save_every_n_steps=15")
    assert main(["fit", f"--run_dir={one}", *OPTIONS, *options, "--trainer.precision=64-true"]) == 0
    assert len(losses(two)) == steps and len(validations(two))
    torch.testing.assert_close(
        losses(two), losses(one), rtol=0, atol=1e-6
    )  # the logger rounds to float32
    torch.testing.assert_close(validations(two), validations(one), rtol=0, atol=1e-6)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-6, atol=1e-8)
    (later / "checkpoints").mkdir(parents=True)
    (two / "checkpoints" / "last-previous.ckpt").rename(later / "checkpoints" / "last.ckpt")
    assert (
        main(["fit", f"--run_dir={later}", *OPTIONS, *options, "--ckpt_path=last"]) == 0
    )  # goes on with one process
    found = losses(later)
    torch.testing.assert_close(found, losses(one)[-len(found) :], rtol=0, atol=1e-3)


def validations(run: Path) -> Tensor:
    with (run / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val/f1")]
    return torch.tensor(
        [[float(row[f"val/{name}"]) for name in ("loss", "f1", "accuracy")] for row in rows]
    )


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    options = [
        "--model.encoder.block=block/conv.yaml",
        "--trainer.max_steps=20",
        "--model.embeddings.dropout=0.3",
    ]
    options += [
        "--trainer.max_epochs=2"
    ]  # so the length of the run is asked for, before the checkpoint is read
    fit(tmp_path / "whole", *options)
    stop(tmp_path / "run", *options)
    fit(tmp_path / "run", *options, "--ckpt_path=last")
    for key in ("state_dict", "optimizer_states"):
        found, expected = (last(tmp_path / name)[key] for name in ("run", "whole"))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(losses(tmp_path / "run"), losses(tmp_path / "whole"))


def stop(run: Path, *options: str) -> None:
    """Send SIGTERM once there is a checkpoint."""
    process = start(run, *options, "--save_every_n_steps=1")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert last(run)["global_step"] < 20


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_one_process_finds_in_a_checkpoint_what_two_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, one = tmp_path / "run", tmp_path / "one"
    fit(
        run, "--config=resnet_ner.yaml", "--data.batch_tokens=400", "--test_after_fit=true"
    )  # with batch norm
    ckpt = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--run_dir", str(one)]
    assert main(["validate", *ckpt]) == 0
    assert main(["test", *ckpt]) == 0
    found = json.loads((one / "val.json").read_text())
    rows = validations(run)
    best = rows[rows[:, 1].argmax()]
    assert best[1] > 0
    torch.testing.assert_close(
        best[1:], torch.tensor([found["f1"], found["accuracy"]]), rtol=0, atol=1e-6
    )
    assert json.loads((one / "test.json").read_text()) == json.loads(
        (run / "test.json").read_text()
    )
    capfd.readouterr()
    assert (
        main(
            [
                "predict",
                "--ckpt_path",
                str(run / "checkpoints" / "best.ckpt"),
                "--data.text",
                "Call Anna.",
            ]
        )
        == 0
    )
    assert json.loads(capfd.readouterr().out)["text"] == "Call Anna."
