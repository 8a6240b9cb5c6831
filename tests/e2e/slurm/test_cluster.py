"""The cluster that other tests rely on does what they take from it: these jobs are shell scripts."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .cluster import Cluster

Script = Callable[[str], Path]
pytestmark = pytest.mark.slurm

# One task that tells what SLURM says of its job at SIGTERM. With `true` it does not end by itself, with `exit` it does.
TELL = """\
srun -n 1 bash -c '
  trap "scontrol show job -o $SLURM_JOB_ID; {then}" TERM
  echo restart=$SLURM_RESTART_COUNT.
  while true; do sleep 0.5; done'
"""


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Write a job script, whose output goes beside it and survives a requeue."""

    def write(body: str) -> Path:
        path = tmp_path / "job.sh"
        path.write_text(f"#!/bin/bash\n#SBATCH --chdir={tmp_path} --open-mode=append\n{body}")
        return path

    return write


# The first of all, because SLURM looks for the end of a grace time 30 s after its own start.
def test_an_urgent_job_preempts_a_spare_one_that_is_then_requeued(
    cluster: Cluster, script: Script
) -> None:
    victim = cluster.sbatch(
        "--partition=spare", "--nodes=2", "--exclusive", script(TELL.format(then="true"))
    )
    cluster.wait_for_output(victim, r"restart=\.")
    begin = time.monotonic()
    urgent = cluster.sbatch(
        "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", script("sleep 1\n")
    )
    seen = cluster.wait_for_output(victim, r"JobId=.*")[0]
    assert time.monotonic() - begin < cluster.grace / 2
    assert "JobState=RUNNING" in seen and "PreemptTime=" in seen
    cluster.wait(victim, "PENDING", restarts=1, seconds=90)
    assert time.monotonic() - begin > cluster.grace - 2
    cluster.wait(urgent, "COMPLETED")
    cluster.scancel(victim)


def test_srun_starts_one_task_on_each_node(cluster: Cluster, script: Script) -> None:
    body = (
        "srun bash -c 'echo $SLURM_PROCID of $SLURM_NTASKS on $SLURMD_NODENAME at $MASTER_ADDR'\n"
    )
    job = cluster.sbatch("--nodes=2", "--ntasks-per-node=1", script(body))
    assert cluster.wait(job, "COMPLETED")["NumNodes"] == "2"
    assert sorted(cluster.output(job).splitlines()) == [
        "0 of 2 on node1 at 127.0.0.1",
        "1 of 2 on node2 at 127.0.0.1",
    ]


def test_a_requeued_job_starts_again_and_knows_it(cluster: Cluster, script: Script) -> None:
    job = cluster.sbatch(
        script('echo restart=$SLURM_RESTART_COUNT.\n[ "$SLURM_RESTART_COUNT" ] || sleep 60\n')
    )
    cluster.wait_for_output(job, r"restart=\.")
    cluster.requeue(job)
    assert cluster.wait(job, "COMPLETED", restarts=1)["Restarts"] == "1"
    assert [line for line in cluster.output(job).splitlines() if "restart" in line] == [
        "restart=.",
        "restart=1.",
    ]


def test_a_cancelled_job_ends_as_cancelled(cluster: Cluster, script: Script) -> None:
    job = cluster.sbatch(script(TELL.format(then="exit")))
    cluster.wait_for_output(job, r"restart=\.")
    cluster.scancel(job)
    assert cluster.wait(job, "CANCELLED")["Restarts"] == "0"
    assert "JobState=COMPLETING" in cluster.output(job)


def test_a_signal_reaches_every_rank(cluster: Cluster, script: Script) -> None:
    body = "srun bash -c 'trap \"echo rank $SLURM_PROCID; exit\" USR1; echo ready; while true; do sleep 0.2; done'\n"
    job = cluster.sbatch("--nodes=2", "--ntasks-per-node=1", script(body))
    cluster.wait_for_output(job, r"ready\n(.*\n)*ready")
    cluster.signal(job, "USR1")
    cluster.wait(job, "COMPLETED", "FAILED")
    assert {"rank 0", "rank 1"} <= set(cluster.output(job).splitlines())


def test_waiting_in_vain_shows_what_the_job_wrote(cluster: Cluster, script: Script) -> None:
    job = cluster.sbatch(script("echo some last words\nexit 3\n"))
    with pytest.raises(AssertionError, match=r"JobState': 'FAILED'[^$]*some last words"):
        cluster.wait(job, "COMPLETED")


def test_nothing_is_left_after_stop(request: pytest.FixtureRequest, script: Script) -> None:
    cluster = Cluster()
    request.addfinalizer(cluster.stop)
    cluster.start()
    job = cluster.sbatch(script("(setsid sleep 60 &)\n" + TELL.format(then="true")))
    cluster.wait_for_output(job, r"restart=\.")
    before = mentioning(cluster.home)
    assert {"munged", "slurmctld", "slurmd", "slurmstepd", "srun", "sleep"} <= before
    cluster.stop()
    assert mentioning(cluster.home) == set()
    assert not cluster.home.exists()


def mentioning(home: Path) -> set[str]:
    """The names of the processes that have the directory in their command line or environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(home).encode() in text:
                found.add((process / "comm").read_text().strip())
    return found
