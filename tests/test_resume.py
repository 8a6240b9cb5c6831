"""A run that is stopped anywhere goes on as if it had never been stopped, to the last bit."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from residense.callbacks.last import Last
from residense.checkpoints import AtomicIO
from residense.cli import main
from residense.data.batches import BatchLoader
from residense.signals import stop_signals

from .runs import OPTIONS, assert_same, assert_same_runs, history, state


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*OPTIONS, f"--run_dir={run}"]) == 0
    return run


def interrupt(monkeypatch: pytest.MonkeyPatch, batch: int, action: Callable[[], None], split: str = "train") -> None:
    """Do something once, when the `batch`-th batch of a split is handed out."""
    share, count = BatchLoader._share, [0]

    def counting(self: BatchLoader, *given: Any) -> Any:
        if self.shuffle == (split == "train"):
            count[0] += 1
            if count[0] == batch:
                action()
        return share(self, *given)

    monkeypatch.setattr(BatchLoader, "_share", counting)


class Crash(Exception):
    """What nobody expects."""


def crash() -> None:
    raise Crash


@pytest.mark.parametrize("batch", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 8, 12))])
def test_a_signal_anywhere_changes_nothing(
    whole: Path, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    number = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)[batch % 3]
    with monkeypatch.context() as patch:
        interrupt(patch, batch, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stopped:
            main([*OPTIONS, f"--run_dir={run}"])
    assert stopped.value.code == 128 + number
    stop_signals.received = None
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same_runs(run, whole)


def test_a_crash_goes_on_from_the_last_step_that_was_saved(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, 12, crash)
        with pytest.raises(Crash):
            main([*OPTIONS, f"--run_dir={run}", "--save_every_n_steps=1"])
    assert state(run)["step"] == 4
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same_runs(run, whole)


@pytest.mark.slow
def test_double_precision_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*OPTIONS, "--trainer.precision=64-true"]
    assert main([*options, f"--run_dir={tmp_path / 'whole'}"]) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            main([*options, f"--run_dir={tmp_path / 'run'}"])
    stop_signals.received = None
    assert main([*options, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=last"]) == 0
    assert_same_runs(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_has_nothing_to_go_on_with(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same_runs(run, whole)


def test_a_second_interrupt_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    interrupt(monkeypatch, 2, twice)
    with pytest.raises(SystemExit) as stopped:
        main([*OPTIONS, f"--run_dir={tmp_path / 'run'}"])
    assert stopped.value.code == 1
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_steps_between_two_saves_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_every_n_steps must be at least 1; got 0"):
        Last(tmp_path, 0)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, options = tmp_path / "run", [*OPTIONS, "--trainer.max_epochs=2"]
    assert main([*options, f"--run_dir={run}"]) == 0
    last, older = (run / "checkpoints" / name for name in ("last.ckpt", "last-previous.ckpt"))
    expected = state(run)
    assert torch.load(older, weights_only=True)["epoch"] == 0
    last.write_bytes(last.read_bytes()[:-1000])
    capfd.readouterr()
    assert main([*options, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    said = capfd.readouterr().err
    assert "last.ckpt: cannot be loaded as a checkpoint" in said and f"going on from the one before, {older}" in said
    assert_same(state(run), expected)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    checkpoints = AtomicIO()
    checkpoints.save_checkpoint({"step": 1}, path)
    checkpoints.save_checkpoint({"step": 2}, path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="nothing was overwritten"):
        checkpoints.save_checkpoint({"step": 3}, path)
    assert torch.load(path)["step"] == 2
    assert torch.load(tmp_path / "last-previous.ckpt")["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last-previous.ckpt", "last.ckpt"]


SUMMING = """
from torchmetrics import MeanMetric, SumMetric

from residense.tasks.tagging import Tagger


class Summing(Tagger):
    def build(self, vocabulary):
        super().build(vocabulary)
        self.logged, self.own = SumMetric(), MeanMetric()

    def training_step(self, batch, batch_idx):
        loss, tokens = super().training_step(batch, batch_idx), batch["num_tokens"]
        self.log("train/mean", loss, on_step=False, on_epoch=True, batch_size=tokens)
        self.log("train/both", loss, on_step=True, on_epoch=True, sync_dist=True, batch_size=tokens)
        self.log("train/most", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.logged.update(loss)
        self.log("train/metric", self.logged, on_step=False, on_epoch=True)
        self.own.update(loss, tokens)
        return loss

    def on_train_epoch_end(self):
        super().on_train_epoch_end()
        self.log("train/own", self.own.compute())
        self.own.reset()
"""


@pytest.mark.parametrize(
    ("split", "batch"),
    [
        ("train", 6),
        pytest.param("validation", 2, marks=pytest.mark.slow),
        pytest.param("train", 9, marks=pytest.mark.slow),
    ],
)
def test_what_an_epoch_sums_up_goes_on(split: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "summing.py").write_text(SUMMING)
    monkeypatch.chdir(tmp_path)
    options = [*OPTIONS, "--model.class_path=summing.Summing"]
    assert main([*options, "--run_dir=whole"]) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, batch, lambda: os.kill(os.getpid(), signal.SIGTERM), split)
        with pytest.raises(SystemExit):
            main([*options, "--run_dir=run"])
    stop_signals.received = None
    assert main([*options, "--run_dir=run", "--ckpt_path=last"]) == 0
    assert_same_runs(tmp_path / "run", tmp_path / "whole")
    assert history(tmp_path / "run")[-1].keys() >= {"train/mean", "train/both_epoch", "train/most", "train/metric"}
