"""Training as a SLURM job: signalled, preempted, cancelled, and what comes of it."""

import sys
import time
from pathlib import Path

import pytest
import torch

from .cluster import Cluster

pytestmark = [pytest.mark.slurm]
ROOT = Path(__file__).parents[2]
OPTIONS = [
    "--config=dense_ner.yaml",
    "--logger=csv",
    "--data.synthetic.size=600",
    "--data.batch_tokens=128",
    "--trainer.max_epochs=6",
    "--test_after_fit=false",
]
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs of this test put their run directories."""
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SETUP", f"export PATH={Path(sys.executable).parent}:$PATH")
    return tmp_path / "runs"


def train(cluster: Cluster, runs: Path, *sbatch: str) -> str:
    output = f"--output={runs.parent}/%j.out"
    return cluster.sbatch(output, *sbatch, "scripts/train.slurm", *OPTIONS, cwd=ROOT)


def weights(runs: Path, job: str) -> dict[str, torch.Tensor]:
    return torch.load(runs / job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def await_steps(runs: Path, job: str, steps: int, seconds: float = 90) -> None:
    """Wait until the run has logged so many steps."""
    history, end = runs / job / "metrics.csv", time.monotonic() + seconds
    while time.monotonic() < end:
        if history.exists() and len(history.read_text().splitlines()) > steps:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {steps} rows in {history}")


def test_a_job_signalled_again_and_again_ends_as_if_it_had_not_been(cluster: Cluster, runs: Path) -> None:
    whole = train(cluster, runs, *TWO_NODES)
    cluster.wait(whole, "COMPLETED", seconds=180)
    job = train(cluster, runs, *TWO_NODES)
    for restarts in range(3):
        cluster.wait(job, "RUNNING", restarts=restarts, seconds=90)
        if restarts:
            time.sleep(3)  # during the imports: it is honoured before the first step
        else:
            cluster.wait_for_output(job, "", seconds=1)
            await_steps(runs, job, 2)
        cluster.signal(job, "USR1")
    cluster.wait(job, "COMPLETED", restarts=3, seconds=180)
    found, expected = weights(runs, job), weights(runs, whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, runs: Path) -> None:
    job = train(cluster, runs)
    cluster.wait(job, "RUNNING")
    await_steps(runs, job, 2)
    cluster.scancel(job)
    cluster.wait(job, "CANCELLED", seconds=60)
    time.sleep(8)
    assert cluster.show(job)["JobState"] == "CANCELLED"


def test_a_preempted_job_comes_back(cluster: Cluster, runs: Path) -> None:
    whole = ["--nodes=2", "--exclusive", "--ntasks-per-node=1"]
    job = train(cluster, runs, "--partition=spare", *whole)
    cluster.wait(job, "RUNNING")
    await_steps(runs, job, 2)
    urgent = cluster.sbatch("--partition=urgent", *whole, "--wrap=sleep 1", f"--output={runs.parent}/urgent.out")
    cluster.wait(urgent, "COMPLETED", seconds=120)
    cluster.wait(job, "COMPLETED", restarts=1, seconds=180)
    assert "requeued" in "".join(path.read_text() for path in (runs / job).glob("*.log"))
