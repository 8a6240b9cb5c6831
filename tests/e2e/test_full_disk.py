"""A disk that is full or read-only: one line says so, and nothing is lost."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from residense.cli import main
from residense.data.batches import BatchLoader
from residense.errors import UsageError
from residense.run.directory import RunDirectory

from .failures import PAGE, SMALL, assert_refused, assert_tidy, command, some_slow
from .runs import OPTIONS, assert_same_runs, history

LARGE = OPTIONS  # a checkpoint of 7 MB
TWO = ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB; temporary files are elsewhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or mount(folder, "size=6m"):
        pytest.skip("a disk can be mounted by root alone")
    yield folder
    subprocess.run(
        ["umount", "--lazy", folder], check=True
    )  # the process of W&B may still end there


def mount(folder: Path, options: str) -> int:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return subprocess.run(command, capture_output=True).returncode


def fill(disk: Path, pages: int = 0) -> None:
    """Leave so many pages free."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize - pages * PAGE))


@pytest.mark.slow
def test_a_first_checkpoint_that_does_not_fit(disk: Path) -> None:
    run = disk / "run"
    options = [*LARGE, "--trainer.max_epochs=1", f"--run_dir={run}", "--ckpt_path=last"]
    process = command(*options)
    errors = process.communicate()[1]
    resume = f"once that is fixed, resume with --run_dir {run} --ckpt_path last"
    full = "No space left on device: nothing was overwritten"
    assert_refused(process.returncode, errors, f"{run}/checkpoints/best.ckpt: {full}; {resume}")
    assert_tidy(run)
    assert not [*(run / "checkpoints").iterdir()]
    assert mount(disk, "remount,size=40m") == 0
    assert main(options) == 0
    assert (run / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_beside_the_last(disk: Path, whole: Path) -> None:
    run = disk / "run"
    process = command(*SMALL, f"--run_dir={run}")
    errors = process.communicate()[1]
    assert_refused(
        process.returncode, errors, f"{run}/checkpoints/last.ckpt: No space left on device"
    )
    assert_tidy(run)
    checkpoints = {
        name: torch.load(run / "checkpoints" / name) for name in ("last.ckpt", "last-previous.ckpt")
    }
    assert [checkpoint["epoch"] for checkpoint in checkpoints.values()] == [1, 0]
    assert mount(disk, "remount,size=20m") == 0
    assert main([*SMALL, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_same_runs(run, whole)


@pytest.mark.slow
def test_a_full_disk_ends_all_processes(disk: Path) -> None:
    process = command(*LARGE, "--ema.decay=null", f"--run_dir={disk}/run", *TWO)
    errors = process.communicate(timeout=100)[1]
    assert_refused(
        process.returncode, errors, f"{disk}/run/checkpoints/last.ckpt: No space left on device"
    )
    assert_tidy(disk / "run")


def at_batch(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Do something when the `number`-th batch of the training split is handed out."""
    share, count = BatchLoader._share, [0]

    def counting(self: BatchLoader, *given: Any) -> Any:
        count[0] += self.shuffle
        if self.shuffle and count[0] == number:
            action()
        return share(self, *given)

    monkeypatch.setattr(BatchLoader, "_share", counting)


@pytest.mark.slow
@pytest.mark.parametrize(  # before there is a metrics.csv, and when its first page is half full
    "full_at", [1, 120]
)
def test_metrics_that_do_not_fit(
    full_at: int,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    many = [
        "--data.batch_tokens=20",
        "--trainer.limit_train_batches=200",
        "--trainer.accumulate_grad_batches=1",
    ]
    options = [*SMALL, *many, "--trainer.max_epochs=1", "--save_every_n_steps=90"]
    assert main([*options, f"--run_dir={tmp_path / 'whole'}"]) == 0
    run = disk / "run"
    with monkeypatch.context() as patch:
        at_batch(patch, full_at, lambda: fill(disk))
        assert_refused(
            main([*options, f"--run_dir={run}"]),
            capfd.readouterr().err,
            f"{run}/metrics.csv: No space",
        )
    assert_tidy(run, ended=False)
    content = (run / "metrics.csv").read_bytes() if (run / "metrics.csv").exists() else b""
    assert content[-1:] in (b"\n", b"")
    (disk / "filler").unlink()
    assert mount(disk, "remount,size=20m") == 0
    assert main([*options, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert history(run) == history(tmp_path / "whole")


@pytest.mark.parametrize(
    ("pages", "name"), some_slow((3, "command.txt"), (0, ".holder"), (1, "config.yaml"))
)
def test_a_run_that_does_not_fit_is_not_begun(
    pages: int, name: str, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(disk, pages)
    assert_refused(
        main([*SMALL, f"--run_dir={disk}/run"]),
        capfd.readouterr().err,
        f"{disk}/run/{name}: No space left",
    )
    assert_tidy(disk / "run", ended=False)


def test_a_run_directory_that_cannot_be_written(
    disk: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = disk / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("last-previous.ckpt"))
    assert mount(disk, "remount,ro") == 0
    code = main([*SMALL, f"--run_dir={run}", "--ckpt_path=last"])
    assert_refused(
        code, capfd.readouterr().err, f"{run} is read-only", "name another folder with --run_dir"
    )
    monkeypatch.chdir(disk)
    for new in (str(disk / "new"), None):
        with pytest.raises(UsageError, match="is read-only: the run cannot be saved in"):
            RunDirectory.create("name", new)
