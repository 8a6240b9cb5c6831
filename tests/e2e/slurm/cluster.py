"""A real SLURM on this machine: munged, slurmctld and one slurmd for each of two logical nodes, all on 127.0.0.1.

Nothing of it needs root or a service manager. Its files and sockets are in a new directory of /tmp, as the path of a
socket has at most 107 characters and pytest's own directories leave too few of them. A real cluster differs in two
ways: its nodes have their own host names, and there a signal need not reach each process of a step.
"""

import contextlib
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
)  # where daemons are installed
PROGRAMS = (
    "munged",
    "munge",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scontrol",
    "scancel",
    "squeue",
    "sinfo",
)
NODES = ("node1", "node2")
ENDS = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
}
PORTS = range(
    25000, 32768
)  # Lightning takes 15000-24999 for its own use, the kernel hands out those from 32768

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
# A requeued job waits until its old credential has expired, 120 s by default.
AuthInfo=socket={home}/munge.sock,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool.%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Both nodes are this machine, and claim more than it has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
JobRequeue=1
KillWait={kill_wait}
MinJobAge=3600
MessageTimeout=30
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=DEFAULT Nodes=ALL State=UP DefaultTime=10 MaxTime=INFINITE PreemptMode=OFF PriorityTier=1
PartitionName=normal Default=YES
PartitionName=spare PreemptMode=REQUEUE GraceTime={grace}
PartitionName=urgent PriorityTier=100
"""


class Cluster:
    """Two nodes in a `normal` partition, and a `spare` one whose jobs make room for those in `urgent`.

    Args:
        cpus: how many CPUs each node claims to have.
        grace: seconds between the SIGTERM of a preempted job and its requeue. SLURM looks at the clock every 30 s only,
            so it can take up to that much longer; counted from `start`, it looks at 30 s, 60 s and so on.
        kill_wait: seconds between SIGTERM and SIGKILL for a job that is cancelled, requeued or out of time.
    """

    def __init__(self, cpus: int = 4, grace: int = 20, kill_wait: int = 5) -> None:
        self.cpus, self.grace, self.kill_wait = cpus, grace, kill_wait
        self.home = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Return when both nodes are idle, or raise with what the daemons said and leave nothing behind."""
        try:
            self._configure()
            self._spawn("munged", *self._munged())
            self._until_ready(
                "munge", f"--socket={self.home}/munge.sock", "--no-input", says="MUNGE:"
            )
            self._spawn("slurmctld", "slurmctld", "-D")
            self._until_ready("scontrol", "ping", says="is UP")
            for node in NODES:
                self._spawn(f"slurmd.{node}", "slurmd", "-D", "-N", node)
            self._until_ready(
                "sinfo",
                "-h",
                "--partition=normal",
                "--states=idle",
                "--format=%D",
                says=str(len(NODES)),
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the daemons with all that their jobs still run, and remove their directory. A second call is harmless.

        To ask first would take up to 20 s, as slurmd lets jobs that are ending end; and no state is worth saving.
        """
        end = time.monotonic() + 10
        while (processes := self.processes()) and time.monotonic() < end:
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(self.home, ignore_errors=True)
        assert not processes, f"processes {processes} of the SLURM cluster outlive SIGKILL"
        for daemon in self.daemons.values():
            daemon.wait()

    def processes(self) -> list[int]:
        """Everything that was started with this cluster's SLURM_CONF: daemons, jobs, and orphans of jobs."""
        mark = f"SLURM_CONF={self.home}/slurm.conf".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def environment(self) -> dict[str, str]:
        """What a subprocess needs to use this cluster, and nothing of a job that the tests themselves may run in."""
        foreign = ("SLURM", "SBATCH_", "SRUN_", "MASTER_")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # sbatch and srun pass the address on; without it Lightning would look up "node1", which no one knows.
        return ours | {
            "SLURM_CONF": f"{self.home}/slurm.conf",
            "PATH": PATH,
            "MASTER_ADDR": "127.0.0.1",
        }

    def sbatch(self, *args: str | Path, cwd: Path | None = None) -> str:
        """Submit a job from `cwd`, where its output will be too, and return its id."""
        return self._run("sbatch", "--parsable", *map(str, args), cwd=cwd).strip()

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job; of an array without an index, of its first entry."""
        line = self._run("scontrol", "show", "job", "-o", job).splitlines()[0]
        return dict(re.findall(r"([\w/:]+)=(.*?)(?=\s+[\w/:]+=|\s*$)", line))

    def output(self, job: str) -> str:
        """What the job has written so far. A restart empties the file, unless it is opened to append."""
        path = Path(self.show(job)["StdOut"])
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(
        self, job: str, *states: str, seconds: float = 60, restarts: int = 0
    ) -> dict[str, str]:
        """Wait for one of the states, after at least so many restarts; return what `show` then says."""

        def reached() -> dict[str, str] | None:
            now = self.show(job)
            return now if now["JobState"] in states and int(now["Restarts"]) >= restarts else None

        return self._poll(job, reached, seconds, f"{' or '.join(states)} with {restarts} restarts")

    def wait_for_output(self, job: str, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Wait until a regular expression occurs in the job's output."""
        return self._poll(
            job,
            lambda: re.search(pattern, self.output(job), re.M),
            seconds,
            f"output with {pattern!r}",
        )

    def signal(self, job: str, name: str, step: bool = True) -> None:
        """Signal all ranks of the job's steps, or only its batch shell. Lost without a word where no step runs yet."""
        self._run("scancel", f"--signal={name}", *([] if step else ["--batch"]), job)

    def scancel(self, job: str) -> None:
        self._run("scancel", job)

    def requeue(self, job: str) -> None:
        self._run("scontrol", "requeue", job)

    def _configure(self) -> None:
        self.home.chmod(0o755)  # munged wants its socket to be in everyone's reach
        (self.home / "state").mkdir()
        key = self.home / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        port, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname().split(".")[0]
        claim = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory=500000"
        nodes = [
            f"NodeName={node} {claim} Port={own}" for node, own in zip(NODES, ports, strict=True)
        ]
        user = pwd.getpwuid(os.getuid()).pw_name
        values = vars(self) | {"host": host, "user": user, "port": port, "nodes": "\n".join(nodes)}
        (self.home / "slurm.conf").write_text(CONFIG.format(**values))

    def _munged(self) -> list[str]:
        files = {
            "key-file": "key",
            "socket": "sock",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        return [
            "munged",
            "--foreground",
            *(f"--{option}={self.home}/munge.{end}" for option, end in files.items()),
        ]

    def _spawn(self, name: str, *command: str) -> None:
        """A child that an interrupt from the terminal does not reach, but that does not outlive a killed pytest."""
        with open(self.home / f"{name}.out", "wb") as out:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", "--", *command],
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _alive(self, name: str) -> bool:
        return name in self.daemons and self.daemons[name].poll() is None

    def _until_ready(self, *command: str, says: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while says not in self._run(*command, check=False):
            dead = [name for name in self.daemons if not self._alive(name)]
            if dead or time.monotonic() > end:
                reason = (
                    f"{dead} ended"
                    if dead
                    else f"`{' '.join(command)}` did not say {says!r} in {seconds} s"
                )
                raise RuntimeError(f"the SLURM cluster did not start: {reason}\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        """The last lines of each daemon's log."""
        logs = [path for path in sorted(self.home.glob("*.*")) if path.suffix in (".log", ".out")]
        return "\n".join(
            f"--- {path.name}\n" + path.read_text(errors="replace")[-1500:] for path in logs
        )

    def _run(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        env = self.environment()
        done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(
                f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr or done.stdout}"
            )
        return done.stdout

    def _poll(self, job: str, condition: Callable[[], T | None], seconds: float, what: str) -> T:
        """Ask every 0.3 s. A job that has ended can fulfil nothing more, so that is a failure at once."""
        end = time.monotonic() + seconds
        while True:
            state = self.show(job)[
                "JobState"
            ]  # before the condition, which may come true with the job's end
            if (result := condition()) is not None:
                return result
            if state in ENDS or time.monotonic() > end:
                now = self.show(job)
                told = {
                    key: now[key]
                    for key in ("JobState", "Reason", "ExitCode", "Restarts", "RunTime", "NodeList")
                }
                raise AssertionError(
                    f"job {job}: no {what} within {seconds} s: {told}\n--- {self.output(job)}"
                )
            time.sleep(0.3)


def free_ports(count: int) -> list[int]:
    """Ports that no one listens on now; a generator of its own, for the tests may have seeded the usual one."""
    free: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError(f"no {count} free ports in {PORTS}")
