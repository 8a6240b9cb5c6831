"""Running as a SLURM job: where the processes are, and whether a job that is asked to stop comes back.

Lightning's own answer saves wherever each process happens to be, goes on training after the requeue, and ends as a
success; see `residense.callbacks.last` for when a run is saved.
"""

import os
import re
import shutil
import signal
import subprocess
import time

from residense.arguments import UsageError
from residense.messages import say

ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
)
MAX_RESTARTS = 100  # a job that is requeued before its first step must not go round for ever


def in_job() -> bool:
    """Whether srun started this process."""
    return "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" in os.environ


def layout(num_nodes: int, devices: int | str | list[int]) -> dict[str, int]:
    """`num_nodes` and `devices` of the trainer as SLURM has given them; what was typed must agree.

    Raises:
        UsageError: it does not, or this is one of several tasks without srun, which would wait for the others for ever.
    """
    nodes, tasks = (
        int(os.environ.get("SLURM_NNODES", "1")),
        int(os.environ.get("SLURM_NTASKS", "1")),
    )
    if "SLURM_JOB_ID" in os.environ and not in_job() and tasks > 1:
        raise UsageError(
            f"a SLURM job of {tasks} tasks, but started without srun: write `srun python main.py ...`"
        )
    if num_nodes not in (1, nodes) or devices not in ("auto", -1, tasks // nodes):
        raise UsageError(
            f"SLURM gives {nodes} nodes with {tasks // nodes} tasks each, but --trainer.num_nodes is {num_nodes} and "
            f"--trainer.devices {devices}: leave both out"
        )
    return {"num_nodes": nodes, "devices": tasks // nodes}


def job() -> str | None:
    """The id that scontrol knows this job or array task by; null outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def comes_back(number: int) -> bool:
    """Whether a job that got this signal is to be requeued: its time is nearly up, or another one takes its place.

    A SIGTERM by scancel or by `scontrol requeue` finds the job completing: what is cancelled stays so.
    """
    if not in_job() or number not in (signal.SIGUSR1, signal.SIGTERM):
        return False
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= MAX_RESTARTS:
        say(f"requeued {MAX_RESTARTS} times: not again")
        return False
    if shutil.which("scontrol") is None:  # as in a container
        say(
            f"there is no scontrol here to requeue job {job()}: submit it again with the same --run_dir"
        )
        return False
    return number == signal.SIGUSR1 or _is_preempted(_show(str(job())))


def has_ended(number: str) -> bool:
    """Whether SLURM knows that a job has ended for good; it forgets a job some minutes later."""
    if shutil.which("scontrol") is None:
        return False
    state = re.search(r"\bJobState=(\S+)", _show(number))
    return state is not None and state[1] in ENDED


def _show(number: str) -> str:
    command = ["scontrol", "show", "job", "-o", number]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _is_preempted(shown: str) -> bool:
    state, preempted = (re.search(rf"\b{key}=(\S+)", shown) for key in ("JobState", "PreemptTime"))
    return bool(
        state
        and state[1] == "RUNNING"
        and preempted
        and preempted[1] not in ("None", "N/A", "Unknown")
    )


def exceeds_grace(seconds: float) -> bool:
    """Whether a run may need longer to save than its job has between the signal and the end; that is said."""
    grace = float(os.environ.get("RESIDENSE_GRACE", "inf"))
    if seconds > grace:
        say(
            f"from one chance to stop to the next, with a checkpoint, it took {seconds:.0f} s, but --signal gives only "
            f"{grace:.0f} s before the time limit: submit with a longer --grace"
        )
    return seconds > grace


def requeue() -> None:
    """Put this job back into the queue."""
    done = subprocess.run(
        ["scontrol", "requeue", str(job())], capture_output=True, text=True, timeout=60
    )
    say(
        f"job {job()} requeued"
        if done.returncode == 0
        else f"requeue of job {job()}: {done.stderr.strip()}"
    )


def await_end(number: int, seconds: float = 600.0) -> None:
    """Stay until SLURM ends a preempted job: one that ends by itself within its grace time counts as failed."""
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(seconds)
