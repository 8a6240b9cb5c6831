"""A run that is stopped anywhere goes on as if it had never been stopped, to the last bit."""

import csv
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from residense.callbacks.last import Last
from residense.checkpoints import AtomicIO
from residense.cli import main
from residense.data.batches import BatchLoader
from residense.signals import stop_signals

OPTIONS = [
    "fit",
    "--config=dense_ner.yaml",
    "--data.synthetic.size=300",
    "--model.encoder.depth=2",
    "--data.batch_tokens=256",
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=7",  # 3 optimiser steps an epoch, of 3, 3 and 1 batches
    "--trainer.accumulate_grad_batches=3",
    "--trainer.log_every_n_steps=1",
    "--ema.decay=0.9",
    "--logger=csv",
    "--test_after_fit=false",
]
BLOCKS = {"lstm": "block/lstm.yaml", "conv": "block/conv.yaml", "transformer": "block/transformer.yaml"}


def some_slow(values: list[Any], fast: set[Any]) -> list[Any]:
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    stop_signals.received, stop_signals.deferred = None, False


@pytest.fixture(scope="module", params=some_slow(list(BLOCKS), {"lstm"}))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Options, and the directory of a run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    options = [*OPTIONS, f"--model.encoder.block={BLOCKS[request.param]}"]
    assert main([*options, f"--run_dir={run}"]) == 0
    return options, run


def state(run: Path) -> dict[str, Any]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "generators", "epoch")}
    callbacks = checkpoint["callbacks"]
    kept["stopping"] = [callbacks[key] for key in callbacks if key.startswith("EarlyStopping")]
    kept["best"] = [callbacks[key]["best_model_score"] for key in callbacks if key.startswith("ModelCheckpoint")]
    return kept | {"average": checkpoint.get("current_model_state"), "step": checkpoint["global_step"]}


def history(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in sorted(row.items()) if k != "train/tokens_per_s"} for row in rows]


def assert_same(found: Any, expected: Any, place: str = "") -> None:
    """Equal to the last bit, tensors and all."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected:
            assert_same(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for i, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{place}[{i}]")
    else:
        assert found == expected, place


def interrupt(monkeypatch: pytest.MonkeyPatch, batch: int, action: Callable[[], None]) -> None:
    """Do something once, when the `batch`-th batch of the training split is handed out."""
    share, count = BatchLoader._share, [0]

    def counting(self: BatchLoader, *given: Any) -> Any:
        count[0] += self.shuffle
        if self.shuffle and count[0] == batch:
            action()
        return share(self, *given)

    monkeypatch.setattr(BatchLoader, "_share", counting)


class Crash(Exception):
    """What nobody expects."""


def crash() -> None:
    raise Crash


@pytest.mark.parametrize("batch", some_slow([1, 2, 4, 6, 7, 8, 13, 14, 20], {2, 8}))
def test_a_signal_anywhere_changes_nothing(
    whole: tuple[list[str], Path], batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, expected = whole
    run = tmp_path / "run"
    number = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)[batch % 3]
    with monkeypatch.context() as patch:
        interrupt(patch, batch, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stopped:
            main([*options, f"--run_dir={run}"])
    assert stopped.value.code == 128 + number
    stop_signals.received = None
    assert main([*options, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same(state(run), state(expected))
    assert history(run) == history(expected)


@pytest.mark.parametrize("batch", some_slow([5, 12], {12}))
def test_a_crash_goes_on_from_the_last_step_that_was_saved(
    whole: tuple[list[str], Path], batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, expected = whole
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, batch, crash)
        with pytest.raises(Crash):
            main([*options, f"--run_dir={run}", "--save_every_n_steps=1"])
    assert state(run)["step"] == {5: 1, 12: 4}[batch]
    assert main([*options, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same(state(run), state(expected))
    assert history(run) == history(expected)


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
    assert torch.load(path) == {"step": 2}
    assert torch.load(tmp_path / "last-previous.ckpt") == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last-previous.ckpt", "last.ckpt"]
