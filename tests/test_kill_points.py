"""Runs are killed at many points, resumed, killed again, and compared with a run that nothing stopped.

The first points of each kind are fixed, the others drawn by `--seed`; `--n` says how many: see `scripts/soak.py`.
"""

import itertools
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from residense.callbacks.last import Last
from residense.cli import main
from residense.data.batches import BatchLoader
from residense.signals import stop_signals

from .runs import BLOCKS, OPTIONS, assert_same_runs

pytestmark = pytest.mark.slow
EVENTS = ("SIGTERM", "SIGUSR1", "SIGKILL", "exception")
SECONDS = 120  # whoever takes longer hangs
fork = multiprocessing.get_context("fork")  # the imports are done once


class Point(NamedTuple):
    """Where a process is stopped, and how.

    Attributes:
        place: `batch`, `validation batch`, `save` or `epoch end`, of which it is the `number`-th; or `time`.
        number: counted from 1; for `time` thousandths of what the whole run takes.
        event: a signal, or an exception.
        rank: of the process that gets it.
    """

    place: str
    number: int
    event: str
    rank: int


FIXED = (("batch", 1), ("batch", 7), ("validation batch", 3), ("epoch end", 1))  # 7: the last before a validation


def points(seed: int, blocks: str, processes: int, n: int) -> list[Point]:
    """The points of one kind, each with another event than the one before."""
    rng = random.Random(f"{seed} {blocks} {processes}")
    first = rng.randrange(len(EVENTS))
    chosen = []
    for i in range(n):
        places = [("batch", 7), ("validation batch", 5), ("save", 2), ("epoch end", 1), ("time", 1000)]
        place, most = rng.choice(places)
        place, number = FIXED[i] if i < len(FIXED) else (place, rng.randint(1, most))
        event = EVENTS[(first + i) % len(EVENTS)]
        if place == "time" and event == "exception":
            event = "SIGKILL"  # an exception has a place
        rank = 0 if place == "save" else rng.randrange(processes)  # the first process alone saves
        chosen.append(Point(place, number, event, rank))
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Two points a run: the second one stops a run that was resumed."""
    n, seed = (int(str(metafunc.config.getoption(name))) for name in ("n", "seed"))
    cases = []
    for blocks, processes in itertools.product(BLOCKS, (1, 2)):
        chosen = points(seed, blocks, processes, n if processes == 1 else (n + 1) // 2)
        pairs = [chosen[i : i + 2] for i in range(0, len(chosen), 2)]
        cases += [
            pytest.param((blocks, processes), pair, id=f"{blocks}-{processes}-{k}") for k, pair in enumerate(pairs)
        ]
    metafunc.parametrize(("whole", "stops"), cases, indirect=["whole"])


class Whole(NamedTuple):
    """A run that nothing stopped."""

    options: list[str]
    processes: int
    run: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    blocks, processes = request.param
    run = tmp_path_factory.mktemp("whole") / "run"
    options = [*OPTIONS, f"--model.encoder.block={BLOCKS[blocks]}"]
    options += [f"--trainer.devices={processes}", "--trainer.accelerator=cpu"]
    options += ["--trainer.strategy=ddp"] * (processes > 1)
    begin = time.monotonic()
    assert start([*options, f"--run_dir={run}"], processes, None, run) == [0] * processes
    return Whole(options, processes, run, time.monotonic() - begin)


def test_a_killed_run_ends_as_if_it_had_not_been(
    whole: Whole, stops: list[Point], tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    run = tmp_path / "run"
    options = [*whole.options, f"--run_dir={run}", "--ckpt_path=last", "--save_every_n_steps=1"]
    for point in stops:
        record_property("point", f"{point.place}|{point.event}")
        codes = start(options, whole.processes, point, run, whole.seconds)
        expected = code_of(point)
        if point.place == "time":
            assert codes[point.rank] in (expected, 0), f"{point}: {codes}"
        elif point.event.startswith("SIG") and point.event != "SIGKILL":
            assert codes == [expected] * whole.processes, f"{point}: {codes}"
        else:
            assert codes[point.rank] == expected, f"{point}: {codes}"
    assert start(options, whole.processes, None, run) == [0] * whole.processes
    assert_same_runs(run, whole.run)


def code_of(point: Point) -> int:
    if point.event == "exception":
        return 1
    number = int(getattr(signal, point.event))
    return -number if point.event == "SIGKILL" else 128 + number


# -- processes --------------------------------------------------------------------------------------------------------


def start(options: list[str], processes: int, point: Point | None, run: Path, seconds: float = 0) -> list[int]:
    """Run processes to their end; their exit codes. Where one breaks down the others are killed, as srun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = []
    for rank in range(processes):
        mine = point if point and point.rank == rank else None
        log = run.with_name(f"{run.name}-{rank}.log")
        worker = fork.Process(target=work, args=(options, rank, processes, port, mine, log))
        worker.start()
        workers.append(worker)
    if point and point.place == "time":
        workers[point.rank].join(seconds * point.number / 1000)
        if workers[point.rank].is_alive():
            os.kill(int(workers[point.rank].pid or 0), getattr(signal, point.event))
    return wait(workers, broken=bool(point and (point.place == "time" or code_of(point) in (1, -signal.SIGKILL))))


def wait(workers: list[BaseProcess], broken: bool) -> list[int]:
    end = time.monotonic() + SECONDS
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.05)
        if broken and any(worker.exitcode for worker in workers):
            end = min(end, time.monotonic() + 5)
        if time.monotonic() > end:
            for worker in workers:
                worker.kill()
            assert broken, f"a process hangs: {[worker.exitcode for worker in workers]}"
    return [int(worker.exitcode or 0) for worker in workers]


def work(options: list[str], rank: int, processes: int, port: int, point: Point | None, log: Path) -> None:
    """What main.py does, in a process that has the imports behind it."""
    stop_signals.install()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    torch.set_num_threads(1)
    if processes > 1:  # as torchrun starts them
        launched = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes, "MASTER_PORT": port}
        launched |= {"LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in launched.items()})
    if point:
        arm(point)
    sys.exit(main(options))


class Crash(Exception):
    """What nobody expects."""


def arm(point: Point) -> None:
    """Have the event happen at its place in this process."""
    passed = itertools.count(1)

    def act() -> None:
        if next(passed) != point.number:
            return
        if point.event == "exception":
            raise Crash
        os.kill(os.getpid(), getattr(signal, point.event))

    share, end, save, fsync = BatchLoader._share, Last.on_train_epoch_end, Last._save, os.fsync
    patch = pytest.MonkeyPatch()  # never undone: the process ends

    def counted_share(self: BatchLoader, *given: Any) -> Any:
        if point.place == ("batch" if self.shuffle else "validation batch"):
            act()
        return share(self, *given)

    def counted_end(self: Last, *given: Any) -> None:
        if point.place == "epoch end":
            act()
        end(self, *given)

    def counted_save(self: Last, *given: Any) -> None:
        with pytest.MonkeyPatch.context() as while_saving:
            if point.place == "save":
                while_saving.setattr(os, "fsync", counted_fsync)
            save(self, *given)

    def counted_fsync(handle: int) -> None:
        act()
        fsync(handle)

    patch.setattr(BatchLoader, "_share", counted_share)
    patch.setattr(Last, "on_train_epoch_end", counted_end)
    patch.setattr(Last, "_save", counted_save)
