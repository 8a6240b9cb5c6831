"""A run that is stopped anywhere goes on as if it had never been stopped, to the last bit."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from residense.callbacks.last import Last
from residense.callbacks.report import Report
from residense.cli import main
from residense.data.batches import BatchLoader
from residense.data.module import TextDataModule
from residense.run.checkpoint_io import AtomicIO
from residense.run.preemption import stop_signals
from residense.tasks.tagging import Tagger

from .runs import OPTIONS, assert_same, assert_same_runs, state


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*OPTIONS, f"--run_dir={run}"]) == 0
    return run


def interrupt(
    monkeypatch: pytest.MonkeyPatch, batch: int, action: Callable[[], None], split: str = "train"
) -> None:
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


@pytest.mark.parametrize(
    "batch", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 8, 12))]
)
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


TESTED = [*OPTIONS, "--test_after_fit=true"]
STOPPED = [
    "--early_stopping.patience=1",
    "--model.optimizer.lr=1e-9",
]  # after the second of three epochs


def contents(run: Path) -> dict[str, bytes]:
    """All files of a run directory."""
    return {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    "options", [[], pytest.param(STOPPED, marks=pytest.mark.slow)], ids=["epochs", "early"]
)
def test_resuming_a_finished_run_changes_nothing(options: list[str], tmp_path: Path) -> None:
    command = [*TESTED, *options, f"--run_dir={tmp_path / 'run'}"]
    assert main(command) == 0
    expected = contents(tmp_path / "run")
    assert {
        "metrics.csv",
        "predictions.jsonl",
        "test.json",
        "test_confusion.png",
    } <= expected.keys()
    (tmp_path / "run" / ".lock").touch()  # of a process that was killed
    assert main([*command, "--ckpt_path=last"]) == 0
    assert contents(tmp_path / "run") == expected


@pytest.mark.parametrize(
    "options",
    [
        [],
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (STOPPED, ["--trainer.max_steps=8"])
        ),
    ],
    ids=["epochs", "early", "steps"],
)
def test_a_test_that_was_interrupted_is_repeated_when_the_run_is_resumed(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main([*TESTED, *options, f"--run_dir={whole}"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Tagger, "test_step", lambda *_: crash())
        with pytest.raises(Crash):
            main([*TESTED, *options, f"--run_dir={run}"])
    assert main([*TESTED, *options, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same_runs(run, whole)
    for name in ("predictions.jsonl", "test.json", "test_confusion.png"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_that_goes_on_has_no_test_until_it_is_tested_again(tmp_path: Path) -> None:
    command = [*TESTED, f"--run_dir={tmp_path}", "--trainer.max_epochs=1"]
    assert main(command) == 0
    scores = tmp_path / "test.json"
    scores.write_text("of the model before")
    assert (
        main([*command, "--ckpt_path=last", "--trainer.max_epochs=2", "--test_after_fit=false"])
        == 0
    )
    assert not scores.exists()
    assert main([*command, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    assert json.loads(scores.read_text())["support"]


def test_the_last_validation_before_max_steps_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*OPTIONS, "--trainer.max_steps=3"]
    assert main([*options, f"--run_dir={tmp_path / 'whole'}"]) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM), "validation")
        with pytest.raises(SystemExit):
            main([*options, f"--run_dir={tmp_path / 'run'}"])
    stop_signals.received = None
    assert main([*options, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=last"]) == 0
    assert_same_runs(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    "elsewhere",
    [
        os.rename,
        *(
            pytest.param(function, marks=pytest.mark.slow)
            for function in (os.symlink, shutil.copytree)
        ),
    ],
    ids=["moved", "linked", "copied"],
)
def test_a_run_in_another_place_keeps_its_best_model(
    elsewhere: Callable[[Path, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = tmp_path / "run", tmp_path / "elsewhere"
    options = [*OPTIONS, "--model.optimizer.lr=1e-9"]  # no epoch is better than the first
    with monkeypatch.context() as patch:
        interrupt(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            main([*options, f"--run_dir={run}"])
    stop_signals.received = None
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    elsewhere(run, place)
    assert main([*options, f"--run_dir={place}", "--ckpt_path=last"]) == 0
    assert (place / "checkpoints" / "best.ckpt").read_bytes() == best
    last = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)
    kept = next(
        state for key, state in last["callbacks"].items() if key.startswith("ModelCheckpoint")
    )
    assert kept["best_model_path"] == str(place / "checkpoints" / "best.ckpt")


def test_a_second_interrupt_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    interrupt(monkeypatch, 2, twice)
    with pytest.raises(SystemExit) as stopped:
        main([*OPTIONS, f"--run_dir={tmp_path / 'run'}"])
    assert stopped.value.code == 130
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("cls", "hook"),
    [(Report, "on_fit_start"), (TextDataModule, "train_dataloader"), (Last, "on_train_start")],
)
def test_a_signal_before_the_first_step_waits_for_it(
    cls: type,
    hook: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    method = getattr(cls, hook)

    def signalled(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        return method(*given)

    monkeypatch.setattr(cls, hook, signalled)
    monkeypatch.setattr(
        _SignalConnector, "_sigterm_notifier_fn", lambda *_: crash()
    )  # it broadcasts, wherever the others are
    stop_signals.install()
    with pytest.raises(SystemExit) as stopped:
        main([*OPTIONS, f"--run_dir={tmp_path}"])
    assert stopped.value.code == 128 + number
    assert "before the first step" in capfd.readouterr().err


def test_a_signal_in_the_test_has_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tagger, "test_step", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    stop_signals.install()
    with pytest.raises(SystemExit) as stopped:
        main([*TESTED, "--trainer.max_epochs=1", f"--run_dir={tmp_path}"])
    assert stopped.value.code == 130


def test_what_a_kill_within_a_save_leaves_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, checkpoints = (
        [*OPTIONS, f"--run_dir={tmp_path}", "--trainer.max_epochs=1"],
        tmp_path / "checkpoints",
    )
    save = AtomicIO.save_checkpoint

    def killed(*given: Any, **named: Any) -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        save(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicIO, "save_checkpoint", killed)
        process = multiprocessing.get_context("fork").Process(target=main, args=(options,))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.name.rpartition("ckpt.")[0] for path in checkpoints.iterdir()] == [".best."]
    assert main([*options, "--ckpt_path=last"]) == 0
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize(
    "batch", [8, pytest.param(16, marks=pytest.mark.slow)]
)  # before a step save, before the end
def test_a_run_that_diverges_goes_on_from_its_last_finite_checkpoint(
    whole: Path,
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run, step = tmp_path / "run", Tagger.training_step
    options, batches = [*OPTIONS, f"--run_dir={run}", "--save_every_n_steps=1"], itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(
            Tagger,
            "training_step",
            lambda *given: step(*given) * (nan if next(batches) == batch else 1),
        )
        assert main(options) == 2
    (error,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (
        f"diverged: at step {state(run)['step'] + 1} train/loss is" in error
        and "--model.optimizer.lr" in error
    )
    for checkpoint in (run / "checkpoints").iterdir():
        saved = torch.load(checkpoint, weights_only=True)
        weights = [*saved["state_dict"].values(), *saved["current_model_state"].values()]
        moments = [
            value
            for state in saved["optimizer_states"][0]["state"].values()
            for value in state.values()
        ]
        assert all(tensor.isfinite().all() for tensor in weights + moments), checkpoint
    assert main([*options, "--ckpt_path=last"]) == 0
    assert_same_runs(run, whole)


def test_a_learning_rate_that_is_too_high_is_said_before_anything_is_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    high = [
        "--save_every_n_steps=3",
        "--model.optimizer.lr=1e30",
        "--trainer.gradient_clip_val=null",
    ]
    assert main([*OPTIONS, *high, "--ema.decay=null", f"--run_dir={tmp_path}"]) == 2
    assert "error: training diverged: at step 3 train/loss is nan" in capfd.readouterr().err
    assert not [*tmp_path.rglob("*.ckpt")]


def test_steps_between_two_saves_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_every_n_steps must be at least 1; got 0"):
        Last(tmp_path / "last.ckpt", 0)


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
    assert (
        "last.ckpt: cannot be loaded as a checkpoint" in said
        and f"resuming from the one before, {older}" in said
    )
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
