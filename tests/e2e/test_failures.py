"""Two jobs in one directory, and runs that are resumed as another."""

import shutil
import socket
from pathlib import Path

import pytest

from residense.cli import main

from .failures import SMALL, assert_refused, assert_tidy, command, some_slow
from .runs import history, state


@pytest.mark.slow
def test_folders_above_the_run_are_made(tmp_path: Path) -> None:
    run = tmp_path / "a" / "b" / "run"
    assert main([*SMALL, f"--run_dir={run}", "--trainer.max_steps=1"]) == 0
    assert (run / "checkpoints" / "last.ckpt").exists()


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
            "start a new run with --init_from",
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
