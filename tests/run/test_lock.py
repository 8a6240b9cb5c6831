"""A run directory has one holder."""

import json
import multiprocessing
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from residense.errors import UsageError
from residense.run import preemption
from residense.run.lock import claim, release


def hold(run: Path, **holder: object) -> None:
    (run / ".lock").write_text(
        json.dumps({"job": None, "host": socket.gethostname(), "pid": 1} | holder)
    )


def test_a_run_directory_has_one_holder(tmp_path: Path, job: Callable[..., None]) -> None:
    hold(tmp_path)
    with pytest.raises(
        UsageError, match=r"is in use by process 1 on .*; once that has ended: rm .*/\.lock"
    ):
        claim(tmp_path)
    hold(tmp_path, host="elsewhere", pid=os.getpid(), job="7")
    with pytest.raises(UsageError, match="is in use"):
        claim(tmp_path)
    job("7")  # the same job, requeued to another node
    claim(tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    hold(tmp_path, pid=gone.pid)
    claim(tmp_path)
    claim(tmp_path)  # and a second run of the same process goes on
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("holder", "gone"),
    [
        ({"boot": "of last week"}, True),  # process 1 lives, but is another one
        ({"started": -1}, True),
        (
            {"namespace": "pid:[1]", "pid": 2**22 + 1},
            False,
        ),  # of another container, where it may live
        ({}, False),
    ],
)
def test_a_holder_is_known_by_more_than_its_number(
    holder: dict[str, object], gone: bool, tmp_path: Path
) -> None:
    hold(tmp_path, **holder)
    if gone:
        claim(tmp_path)
    else:
        with pytest.raises(UsageError, match="is in use by process"):
            claim(tmp_path)


@pytest.mark.parametrize(
    ("state", "gone"), [("NODE_FAIL", True), ("RUNNING", False), ("REQUEUED", False)]
)
def test_the_lock_of_a_job_on_another_node_is_taken_over_once_slurm_says_it_ended(
    state: str,
    gone: bool,
    tmp_path: Path,
    job: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job("8")
    monkeypatch.setattr(
        preemption,
        "_show",
        lambda number: f"JobId={number} JobState={state} Reason=None" * (number == "7"),
    )
    hold(tmp_path, host="elsewhere", job="7")
    if gone:
        claim(tmp_path)
    else:
        with pytest.raises(
            UsageError, match="is in use by process 1 on elsewhere, job 7; once that has ended: rm "
        ):
            claim(tmp_path)


def test_a_lock_is_released_by_its_holder_alone(tmp_path: Path) -> None:
    claim(tmp_path)
    release(tmp_path)
    hold(tmp_path)
    release(tmp_path)  # once more, as a process does when it ends
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == 1


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
    os._exit(0)  # what was claimed stays so


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_of_two_claims_at_the_same_moment_one_wins(stale: bool, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / str(number)).mkdir()
        if stale:
            content = f'{{"job": null, "host": "{socket.gethostname()}", "pid": {2**22 + 1}}}'  # no process has that
            (tmp_path / str(number) / ".lock").write_text(content)
    fork = multiprocessing.get_context("fork")
    together, won = fork.Barrier(2), fork.Queue()
    for _ in range(2):
        fork.Process(target=claim_all, args=(tmp_path, together, won)).start()
    assert len({won.get(timeout=60) for _ in range(1000)}) == 1000
    for process in multiprocessing.active_children():
        process.join()
    assert won.empty() and len([*tmp_path.rglob(".lock*")]) == 1000
