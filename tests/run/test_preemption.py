"""What a job does that is asked to stop: with what SLURM would say."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from residense.errors import UsageError
from residense.run import preemption

PREEMPTED = "JobId=7 JobState=RUNNING PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=2026-01-01T00:01:00"
KICKED = "JobId=7 JobState=RUNNING PreemptTime=None"
CANCELLED = "JobId=7 JobState=COMPLETING PreemptTime=None"


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
