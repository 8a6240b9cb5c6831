"""A damaged checkpoint is left for the one before it."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from residense.cli import main
from residense.settings.arguments import arrange

from .failures import PAGE, SMALL, assert_refused, command
from .runs import assert_same_runs


class Foreign:
    """Something that only its own project can load."""


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def edited(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


CUT, LACKS = (
    "cannot be loaded as a checkpoint (not a complete ZIP file)",
    "not a checkpoint of this project",
)
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (edited(lambda good: b""), CUT),
    "half": (edited(lambda good: good[: len(good) // 2]), CUT),
    "without its end": (edited(lambda good: good[:-100]), CUT),
    "zeros": (edited(lambda good: bytes(len(good))), CUT),
    "zeros inside": (
        edited(lambda good: good[:500_000] + bytes(PAGE) + good[500_000 + PAGE :]),
        "is damaged)",
    ),
    "text": (lambda path: path.write_text("not a checkpoint\n"), CUT),
    "zip": (zipped, "cannot be loaded as a checkpoint"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"state_dict": {}})), CUT),
    "objects": (
        lambda path: torch.save(Foreign(), path),
        "(it contains more than tensors and settings)",
    ),
    "other project": (lambda path: torch.save({"state_dict": {}, "epoch": 1}, path), LACKS),
    "no dictionary": (lambda path: torch.save([1, [2]], path), LACKS),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_left_for_the_one_before(
    damage: str, copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last, older, best = (
        copied / "checkpoints" / f"{name}.ckpt" for name in ("last", "last-previous", "best")
    )
    change, reason = DAMAGE[damage]
    change(last)
    options = ["--run_dir", str(copied), "--ckpt_path", "last"]
    assert arrange("fit", options)[-1] == f"--ckpt_path={older}"
    said = capfd.readouterr().err
    assert (
        f"{last}: " in said
        and reason in said
        and said.endswith(f"resuming from the one before, {older}\n")
    )
    older.unlink()
    expected = f"and there is none before it; try {best}: --ckpt_path best"
    assert_refused(main(["fit", *options]), capfd.readouterr().err, str(last), reason, expected)


def test_two_damaged_checkpoints_are_one_too_many(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("last", "last-previous"):
        (copied / "checkpoints" / f"{name}.ckpt").write_bytes(b"")
    code = main(["fit", f"--run_dir={copied}", "--ckpt_path=last"])
    assert_refused(code, capfd.readouterr().err, f"{copied}/checkpoints/last-previous.ckpt: {CUT}")


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before(copied: Path, whole: Path) -> None:
    last = copied / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    process = command(*SMALL, f"--run_dir={copied}", "--ckpt_path=last")
    errors = process.communicate()[1]
    assert process.returncode == 0 and f"{last}: {CUT}; resuming from the one before" in errors
    assert_same_runs(copied, whole)
    first, second = (copied / "command.txt").read_text().splitlines()  # each start adds its own
    assert first.endswith(f"--run_dir={whole}") and second.endswith("--ckpt_path=last")


@pytest.mark.slow
def test_a_run_that_ended_between_its_first_two_saves_goes_on(
    copied: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("last", "last-previous"):
        (copied / "checkpoints" / f"{name}.ckpt").unlink()
    assert main([*SMALL, f"--run_dir={copied}", "--ckpt_path=last"]) == 0
    assert (
        f"no {copied}/checkpoints/last.ckpt: resuming from {copied}/checkpoints/best.ckpt"
        in capfd.readouterr().err
    )
    ended = [torch.load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (copied, whole)]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[1])
