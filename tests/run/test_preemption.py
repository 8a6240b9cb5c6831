"""What a job does that is asked to stop, and who may write to a run directory: with what SLURM would say."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from residense.errors import UsageError
from residense.run import preemption
from residense.run.lock import claim, release

PREEMPTED = "JobId=7 JobState=RUNNING PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=2026-01-01T00:01:00"
KICKED = "JobId=7 JobState=RUNNING PreemptTime=None"
CANCELLED = "JobId=7 JobState=COMPLETING PreemptTime=None"


@pytest.fixture
def job(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., None]:
    """Make this process a task of a job, where there is a scontrol."""
    program = tmp_path_factory.mktemp("bin") / "scontrol"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def become(number: str = "7", **variables: str) -> None:
        for name, value in {"SLURM_JOB_ID": number, "SLURM_STEP_ID": "0", **variables}.items():
            monkeypatch.setenv(name, value)

    return become


@pytest.mark.parametrize(
    ("number", "shown", "back"),
    [
        (signal.SIGUSR1, CANCELLED, True),
        (signal.SIGTERM, PREEMPTED, True),
        (signal.SIGTERM, KICKED, False),
        (signal.SIGTERM, CANCELLED, False),
        (signal.SIGINT, PREEMPTED, False),
    ],
)
def test_a_job_comes_back_only_if_it_is_preempted(
    number: int, shown: str, back: bool, job: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "_show", lambda number: shown)
    assert not preemption.comes_back(number)
    job()
    assert preemption.comes_back(number) == back


def test_a_job_without_scontrol_is_not_requeued(
    job: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not preemption.comes_back(signal.SIGUSR1)
    assert "no scontrol here to requeue job 7: submit it again" in capsys.readouterr().err


def test_restarts_come_to_an_end(job: Callable[..., None]) -> None:
    job(SLURM_RESTART_COUNT=str(preemption.MAX_RESTARTS - 1))
    assert preemption.comes_back(signal.SIGUSR1)
    job(SLURM_RESTART_COUNT=str(preemption.MAX_RESTARTS))
    assert not preemption.comes_back(signal.SIGUSR1)


def test_a_grace_time_that_is_too_short_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not preemption.exceeds_grace(1e6)  # nothing is known of it
    monkeypatch.setenv("RESIDENSE_GRACE", "120")
    assert not preemption.exceeds_grace(120) and preemption.exceeds_grace(121)
    assert "took 121 s, but --signal gives only 120 s" in capsys.readouterr().err


def test_an_array_task_requeues_itself_alone(
    job: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job("9", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="2")
    preemption.requeue()
    assert (tmp_path / "called").read_text() == "requeue 7_2\n"


def test_nodes_and_devices_are_those_of_the_job(job: Callable[..., None]) -> None:
    job(SLURM_NNODES="2", SLURM_NTASKS="8")
    assert preemption.layout(1, "auto") == preemption.layout(2, 4) == {"num_nodes": 2, "devices": 4}
    with pytest.raises(
        UsageError, match=r"SLURM gives 2 nodes with 4 tasks each, but --trainer.num_nodes is 3"
    ):
        preemption.layout(3, "auto")


def test_several_tasks_need_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(UsageError, match="a SLURM job of 2 tasks, but started without srun"):
        preemption.layout(1, "auto")


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
