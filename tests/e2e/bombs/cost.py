"""What reading a file costs, measured in a process of its own."""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 10
BYTES = 1 << 30
GIVE_UP = 4 * BYTES  # what a process may allocate before it is ended


class Cost(NamedTuple):
    """What reading a file took, in seconds of the processor, and the error that refused it, if one did."""

    seconds: float
    memory: int
    error: str | None


def cost(read: Callable[[], object]) -> Cost:
    """Call a function in a process of its own, which begins with all that is imported here."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_report, args=(read, sender))
    process.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(12 * SECONDS) else None
    except EOFError:
        found = None
    process.kill()
    process.join()
    return found or Cost(2 * SECONDS, GIVE_UP, f"ended with exit code {process.exitcode}")


def _report(read: Callable[[], object], sender: Any) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GIVE_UP
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    begin, before = time.process_time(), _peak()
    resource.setrlimit(resource.RLIMIT_CPU, (int(begin) + 2 * SECONDS, int(begin) + 2 * SECONDS))
    error = None
    try:
        read()
    except ValueError as refused:
        error = str(refused)
    except BaseException as unexpected:
        error = f"unexpected {unexpected!r}"
    sender.send(Cost(time.process_time() - begin, _peak() - before, error))
    sender.close()
    os._exit(0)


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def assert_bounded(found: Cost) -> None:
    assert found.seconds < SECONDS and found.memory < BYTES, found
    if found.error is not None:
        assert not found.error.startswith(("unexpected", "ended")), found
        assert "\n" not in found.error and len(found.error) < 1000, found
