"""What a job does that is asked to stop, and who may write to a run directory: with what SLURM would say."""

import errno
import os
import signal
import socket
import subprocess
import sys
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


CLAIM = """
import sys
from pathlib import Path
from residense.run.lock import claim

try:
    claim(Path(sys.argv[1]))
except ValueError as error:
    sys.exit(str(error))
print("claimed", flush=True)
sys.stdin.read()
"""


def claim_elsewhere(run: Path) -> subprocess.Popen[str]:
    """Claim a directory in another process; it ends once its standard input is closed."""
    command = [sys.executable, "-c", CLAIM, str(run)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_run_directory_has_one_holder(tmp_path: Path, job: Callable[..., None]) -> None:
    job("7")
    with claim_elsewhere(tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        expected = f"is in use by process {holder.pid} on {socket.gethostname()}, job 7$"
        with pytest.raises(UsageError, match=expected):
            claim(tmp_path)
        holder.kill()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".holder"}
    claim(tmp_path)  # nothing has to be removed by hand
    claim(tmp_path)  # and a second run of the same process goes on
    with claim_elsewhere(tmp_path) as loser:
        _, errors = loser.communicate()
        assert loser.returncode == 1 and f"is in use by process {os.getpid()} on" in errors
    release(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_lock_does_not_outlive_its_process_in_a_child(tmp_path: Path) -> None:
    script = CLAIM.replace(
        "sys.stdin.read()", "if os.fork(): time.sleep(1), os._exit(0)\ntime.sleep(9)"
    )
    script = f"import os, time\n{script}"
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    assert parent.wait() == 0
    claim(tmp_path)
    release(tmp_path)


def test_a_lock_is_released_by_its_holder_alone(tmp_path: Path) -> None:
    claim(tmp_path)
    release(tmp_path)
    with claim_elsewhere(tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        release(tmp_path)  # once more, as a process does when it ends
        with pytest.raises(UsageError, match="is in use by process"):
            claim(tmp_path)


def test_a_lock_server_that_is_missing_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", missing)
    claim(tmp_path)
    assert f"{tmp_path} cannot be locked (No locks available)" in capsys.readouterr().err
    release(tmp_path)


def test_a_filesystem_without_locks_gets_a_file_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    (tmp_path / ".lock").write_text("1\nelsewhere\n")
    with (
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(
            UsageError, match=r"in use by another process; if that has ended: rm .*/\.lock"
        ),
    ):
        claim(tmp_path)
    (tmp_path / ".lock").unlink()
    with pytest.warns(UserWarning, match="flock not supported"):
        claim(tmp_path)
    release(tmp_path)
    assert not any(tmp_path.iterdir())
