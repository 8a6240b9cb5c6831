"""What a disk, a second job or a wrong file does to a run: a line says what to do, and nothing is lost."""

import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from residense.cli import main
from residense.data.batches import BatchLoader
from residense.errors import UsageError
from residense.run.directory import RunDirectory
from residense.run.lock import claim
from residense.settings.arguments import arrange

from .runs import OPTIONS, assert_same_runs, history, state

MAIN = Path(__file__).parents[1] / "main.py"
LARGE = OPTIONS  # a checkpoint of 7 MB
SMALL = [  # one of 1.9 MB: three fit on a disk of 6 MB, so the fourth, while last.ckpt is replaced, does not
    *OPTIONS,
    "--model.embeddings.dim=60",
    "--model.encoder.block=block/conv.yaml",
    "--model.encoder.connection.growth_rate=32",
]
TWO = ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
PAGE = 4096


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


def some_slow(fast: Any, *others: Any) -> list[Any]:
    return [fast, *(pytest.param(*values, marks=pytest.mark.slow) for values in others)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*SMALL, f"--run_dir={run}"]) == 0
    return run


def command(*options: str) -> subprocess.Popen[str]:
    """What a user types, in a process of its own."""
    return subprocess.Popen([sys.executable, MAIN, *options], stdout=-1, stderr=-1, text=True)


def assert_refused(code: int, errors: str, *expected: str) -> None:
    """The command ended with one clear line."""
    assert code == 2 and "Traceback" not in errors, errors
    assert errors.count("error:") == 1 and errors.splitlines()[-1].startswith("error: ")
    for words in expected:
        assert words in errors.splitlines()[-1]


def assert_tidy(run: Path, ended: bool = True) -> None:
    """No temporary file was left and, if the process that ran there has ended, no lock."""
    assert {path.name for path in run.rglob(".*")} <= (set() if ended else {".lock", ".holder"})


# -- the disk is full --------------------------------------------------------------------------------------------------


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


# -- the newest checkpoint is damaged ----------------------------------------------------------------------------------


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


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_left_for_the_one_before(
    damage: str, copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last, older, best = (
        copied / "checkpoints" / f"{name}.ckpt" for name in ("last", "last-previous", "best")
    )
    change, reason = DAMAGE[damage]
    change(last)
    options = ["fit", "--run_dir", str(copied), "--ckpt_path", "last"]
    assert arrange(options)[-1] == f"--ckpt_path={older}"
    said = capfd.readouterr().err
    assert (
        f"{last}: " in said
        and reason in said
        and said.endswith(f"resuming from the one before, {older}\n")
    )
    older.unlink()
    expected = f"and there is none before it; try {best}: --ckpt_path best"
    assert_refused(main(options), capfd.readouterr().err, str(last), reason, expected)


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


# -- where the run is kept ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_folders_above_the_run_are_made(tmp_path: Path) -> None:
    run = tmp_path / "a" / "b" / "run"
    assert main([*SMALL, f"--run_dir={run}", "--trainer.max_steps=1"]) == 0
    assert (run / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("below", ["", "run"])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_a_run_directory_that_is_none(kind: str, below: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("kept") if kind == "file" else wrong.symlink_to(tmp_path / "nothing")
    with pytest.raises(
        UsageError, match=rf"^{wrong} is not a folder.*name another folder with --run_dir$"
    ):
        RunDirectory.create("name", str(wrong / below))
    assert os.path.lexists(wrong) and (kind != "file" or wrong.read_text() == "kept")


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


# -- two at once -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_two_jobs_in_one_directory_one_trains(tmp_path: Path) -> None:
    run = tmp_path / "run"
    long = [
        *SMALL,
        "--trainer.max_epochs=30",
        "--early_stopping.patience=30",
    ]  # the other may start seconds later
    jobs = [
        command(*long, f"--run_dir={run}", "--ckpt_path=last", f"--name=job{number}")
        for number in (0, 1)
    ]
    errors = [job.communicate()[1] for job in jobs]
    winner = [job.returncode for job in jobs].index(0)
    loser = 1 - winner
    holder = f"{run} is in use by process {jobs[winner].pid} on {socket.gethostname()}"
    assert_refused(jobs[loser].returncode, errors[loser], holder)
    assert_tidy(run)
    assert f"--name=job{winner}" in (run / "command.txt").read_text()
    assert f"name: job{winner}" in (run / "config.yaml").read_text()
    steps = [int(row["step"]) for row in history(run) if row["train/loss"]]
    assert steps == list(range(90)) and state(run)["step"] == 90


def claim_all(folder: Path, together: Any, won: Any) -> None:
    """Claim one directory after another, each at the same moment as the other process."""
    for run in sorted(folder.iterdir()):
        together.wait()
        try:
            claim(run)
            won.put(run.name)
        except UsageError:
            pass
    won.close()
    won.join_thread()
    together.wait()  # a process that ends frees what it has claimed
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_of_two_claims_at_the_same_moment_one_wins(stale: bool, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / str(number)).mkdir()
        if stale:
            (tmp_path / str(number) / ".lock").touch()  # of a process that was killed
    fork = multiprocessing.get_context("fork")
    together, won = fork.Barrier(2), fork.Queue()
    for _ in range(2):
        fork.Process(target=claim_all, args=(tmp_path, together, won)).start()
    assert len({won.get(timeout=60) for _ in range(60)}) == 60
    for process in multiprocessing.active_children():
        process.join()
    assert won.empty() and len([*tmp_path.rglob(".lock")]) == 60


# -- something else is resumed -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_not_resumed_as_another(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (copied / "config.yaml").read_bytes()
    for option, place in (
        ("--model.encoder.connection=Residual", "model.encoder.connection"),
        ("--data.synthetic.language=zh", "data.synthetic.language"),
    ):
        code = main([*SMALL, option, f"--run_dir={copied}", "--ckpt_path=last"])
        assert_refused(
            code,
            capfd.readouterr().err,
            f"but {place} would change",
            "begin a new run with --init_from",
        )
    assert (copied / "config.yaml").read_bytes() == before
    assert_tidy(copied)


@pytest.mark.parametrize(
    ("file", "name"),
    some_slow(
        ("dev.conll", "validation"),
        ("train.conll", "train"),
        ("test.conll", "test"),
        ("words.vec", "vectors"),
    ),
)
def test_a_run_is_not_resumed_on_data_that_changed(
    file: str, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus, moved, run = tmp_path / "corpus", tmp_path / "moved", tmp_path / "run"
    corpus.mkdir()
    for split in ("train", "dev", "test"):
        (corpus / f"{split}.conll").write_text("Anna\tB-PER\nmet\tO\nBob\tB-PER\n\n" * 20)
    (tmp_path / "words.vec").write_text("met 1 2\nbob 3 4\n")
    vectors = [f"--data.vectors={tmp_path / 'words.vec'}", "--model.embeddings.dim=2"] * (
        name == "vectors"
    )
    options = [*SMALL, *vectors, f"--data.path={corpus}", f"--run_dir={run}"]
    assert main([*options, "--trainer.max_epochs=1"]) == 0
    changed = next(tmp_path.rglob(file))
    content = changed.read_text()
    changed.write_text(content.replace("met", "saw"))
    capfd.readouterr()
    code = main([*options, "--ckpt_path=last"])
    assert_refused(
        code, capfd.readouterr().err, f"{corpus}: {name} data changed since this run began"
    )
    changed.write_text(content)
    shutil.copytree(corpus, moved)  # other files of the same content
    shutil.rmtree(corpus)
    corpus.symlink_to(moved)
    assert main([*options, "--ckpt_path=last"]) == 0


def test_two_runs_of_one_second_have_two_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    first, second = (RunDirectory.create("name", None) for _ in range(2))
    assert first.path != second.path
