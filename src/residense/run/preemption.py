"""Preemption: after a signal, a run saves at the end of the current step and is requeued.

Lightning saves inside the signal handler, wherever the process happens to be, trains on after the
requeue, and exits as a success. Here the handler only sets a flag, which `callbacks.last.Last`
checks between two steps.

Nothing heavy is imported here: `main.py` installs the handlers before anything else.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from types import FrameType

from residense.errors import UsageError
from residense.messages import say

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MAX_RESTARTS = 100  # so that a job that is requeued before its first step does not loop forever


class StopSignals:
    """Signal handlers that set a flag.

    Attributes:
        received: The signal that was received, if any.
        deferred: Whether the flag is checked; otherwise a signal ends the process at once, except
            for SIGUSR1, which schedulers send long before the end.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self._installed = False

    def install(self) -> None:
        """Install the handlers; call it again after a library has installed its own.

        A job script may start Python with the signals blocked, so that none is lost before this.
        """
        for number in STOPPING:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        if not self._installed:  # the workers of a data loader end at once
            os.register_at_fork(after_in_child=_default_handlers)
        self._installed = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        insisted = number == signal.SIGINT and self.received == signal.SIGINT
        waits = self.deferred or number == signal.SIGUSR1
        if self.received is None or number == signal.SIGINT:
            self.received = number
        if number == signal.SIGINT and (insisted or not waits):
            raise KeyboardInterrupt
        if not waits:
            raise SystemExit(128 + number)


def _default_handlers() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)


stop_signals = StopSignals()


class Stopped(SystemExit):
    """Ends a run that was saved after a signal, with the exit code of the signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


# -- SLURM -----------------------------------------------------------------------------------------


def in_job() -> bool:
    """Return whether srun started this process."""
    return "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" in os.environ


def layout(num_nodes: int, devices: int | str | list[int]) -> dict[str, int]:
    """Return `num_nodes` and `devices` of the trainer as SLURM has allocated them.

    Raises:
        UsageError: The options differ, or one of several tasks was started without srun and would
            wait for the others forever.
    """
    nodes = int(os.environ.get("SLURM_NNODES", "1"))
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if "SLURM_JOB_ID" in os.environ and not in_job() and tasks > 1:
        raise UsageError(
            f"a SLURM job of {tasks} tasks, but started without srun: use `srun python main.py ...`"
        )
    if num_nodes not in (1, nodes) or devices not in ("auto", -1, tasks // nodes):
        raise UsageError(
            f"SLURM gives {nodes} nodes with {tasks // nodes} tasks each, but --trainer.num_nodes "
            f"is {num_nodes} and --trainer.devices {devices}: leave both out"
        )
    return {"num_nodes": nodes, "devices": tasks // nodes}


def job() -> str | None:
    """Return the id of this job or array task for scontrol; None outside SLURM."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def comes_back(number: int) -> bool:
    """Return whether to requeue the job after this signal: time limit or preemption.

    After `scancel` or `scontrol requeue` the job is completing: it is not requeued.
    """
    if not in_job() or number not in (signal.SIGUSR1, signal.SIGTERM):
        return False
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= MAX_RESTARTS:
        say(f"requeued {MAX_RESTARTS} times: not again")
        return False
    if shutil.which("scontrol") is None:  # as in a container
        say(
            f"there is no scontrol here to requeue job {job()}: "
            "submit it again with the same --run_dir"
        )
        return False
    return number == signal.SIGUSR1 or _is_preempted(_show(str(job())))


def _show(number: str) -> str:
    command = ["scontrol", "show", "job", "-o", number]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _is_preempted(shown: str) -> bool:
    running = re.search(r"\bJobState=RUNNING\b", shown)
    return bool(running and re.search(r"\bPreemptTime=(?!None|N/A|Unknown)\S", shown))


def exceeds_grace(seconds: float) -> bool:
    """Return whether saving may take longer than the job has after the signal, and say so."""
    grace = float(os.environ.get("RESIDENSE_GRACE", "inf"))
    if seconds > grace:
        say(
            f"the longest step with its checkpoint took {seconds:.0f} s, but --signal gives only "
            f"{grace:.0f} s before the time limit: submit with a longer --grace"
        )
    return seconds > grace


def requeue() -> None:
    """Put this job back into the queue."""
    command = ["scontrol", "requeue", str(job())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        say(f"requeue of job {job()}: {done.stderr.strip()}")
    else:
        say(f"job {job()} requeued")


def await_end(number: int, seconds: float = 600.0) -> None:
    """Wait until SLURM ends a preempted job: if it ends by itself, it counts as failed."""
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(seconds)
