"""Training as a SLURM job: signalled, preempted, cancelled, and what comes of it. `--n` says how many signals."""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from .cluster import Cluster

pytestmark = [pytest.mark.slurm]
ROOT = Path(__file__).parents[3]
OPTIONS = [
    "--config=dense_ner.yaml",
    "--logger=csv",
    "--data.synthetic.size=600",
    "--data.batch_tokens=128",
    "--test_after_fit=false",
]
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs of this test put their run directories."""
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SETUP", f"export PATH={Path(sys.executable).parent}:$PATH")
    return tmp_path / "runs"


def train(cluster: Cluster, runs: Path, *sbatch: str, epochs: int = 6) -> str:
    output = f"--output={runs.parent}/%j.out"
    options = [*OPTIONS, f"--trainer.max_epochs={epochs}"]
    return cluster.sbatch(output, *sbatch, "scripts/train.slurm", *options, cwd=ROOT)


def weights(runs: Path, job: str) -> dict[str, torch.Tensor]:
    return torch.load(runs / job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def steps(runs: Path, job: str) -> int:
    """How many rows the run has logged."""
    history = runs / job / "metrics.csv"
    return len(history.read_text().splitlines()) if history.exists() else 0


def await_steps(runs: Path, job: str, more: int, seconds: float = 90) -> None:
    """Wait until the run has logged so many rows more."""
    before, end = steps(runs, job), time.monotonic() + seconds
    while time.monotonic() < end:
        if steps(runs, job) >= before + more:
            return
        time.sleep(0.1)
    raise AssertionError(f"{runs / job}: no {more} rows more")


def assert_same_weights(runs: Path, job: str, expected: str) -> None:
    found, whole = weights(runs, job), weights(runs, expected)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_job_signalled_again_and_again_ends_as_if_it_had_not_been(
    cluster: Cluster,
    runs: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, Any], None],
) -> None:
    n, seed = (int(str(request.config.getoption(name))) for name in ("n", "seed"))
    rng, epochs = random.Random(seed), 4 + 2 * n
    whole = train(cluster, runs, *TWO_NODES, epochs=epochs)
    cluster.wait(whole, "COMPLETED", seconds=180 + 10 * n)
    job = train(cluster, runs, *TWO_NODES, epochs=epochs)
    after = cluster.sbatch(
        f"--dependency=afterok:{job}", f"--output={runs.parent}/after.out", "--wrap=true"
    )
    for restarts in range(n):
        cluster.wait(job, "RUNNING", restarts=restarts, seconds=90)
        early = bool(restarts % 2)  # during the imports or the first steps
        if early:
            time.sleep(rng.uniform(3, 12))
        else:
            await_steps(runs, job, rng.randint(1, 8))
        record_property("point", f"{'start' if early else 'training'}|SIGUSR1")
        cluster.signal(job, "USR1")
        assert cluster.show(after)["JobState"] == "PENDING"
    cluster.wait(job, "COMPLETED", restarts=n, seconds=180 + 10 * n)
    assert_same_weights(runs, job, whole)
    cluster.wait(after, "COMPLETED")


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, runs: Path) -> None:
    job = train(cluster, runs)
    cluster.wait(job, "RUNNING")
    await_steps(runs, job, 2)
    cluster.scancel(job)
    cluster.wait(job, "CANCELLED", seconds=60)
    time.sleep(8)
    assert cluster.show(job)["JobState"] == "CANCELLED"


def test_preempted_tasks_of_an_array_come_back(
    cluster: Cluster, runs: Path, record_property: Callable[[str, Any], None]
) -> None:
    sweep = {
        "method": "grid",
        "parameters": {"name": {"values": ["a", "b c", "d"]}},
        "command": ["fit", "${args}"],
    }
    (runs.parent / "sweep.yaml").write_text(json.dumps(sweep))
    whole = train(cluster, runs)
    cluster.wait(whole, "COMPLETED", seconds=120)
    export = f"--export=ALL,SWEEP={runs.parent}/sweep.yaml"
    array = train(cluster, runs, "--partition=spare", "--array=0-2", "--cpus-per-task=1", export)
    tasks = [f"{array}_{i}" for i in range(3)]
    for task in tasks:
        cluster.wait(task, "RUNNING")
    for task in tasks:
        if not steps(runs, task):
            await_steps(runs, task, 2)
    take = ["--partition=urgent", "--nodes=2", "--exclusive", "--ntasks-per-node=1"]
    urgent = cluster.sbatch(*take, "--wrap=sleep 1", f"--output={runs.parent}/urgent.out")
    cluster.wait(urgent, "COMPLETED", seconds=120)
    for task in tasks:
        cluster.wait(task, "COMPLETED", restarts=1, seconds=180)
        record_property("point", "training|preemption")
        assert_same_weights(runs, task, whole)
        assert "requeued" in "".join(path.read_text() for path in (runs / task).glob("*.log"))
    configs = [yaml.safe_load((runs / task / "config.yaml").read_text()) for task in tasks]
    assert [config["name"] for config in configs] == ["a", "b c", "d"]
