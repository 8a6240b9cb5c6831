"""Runs are killed at many points, resumed, killed again, and compared with a run that nothing stopped.

`--n` is the number of runs, by `--seed` their points are drawn: see `scripts/experiments/soak.py`.
"""

import importlib
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
from residense.callbacks.report import Report
from residense.cli import main
from residense.data.batches import BatchLoader
from residense.data.module import TextDataModule
from residense.run.checkpoint_io import AtomicIO
from residense.run.preemption import stop_signals

from .runs import SMALL, assert_one_wandb_run, assert_same_runs

pytestmark = pytest.mark.slow
NER, CLS = (
    ["--config=dense_ner.yaml", "--model.encoder.depth=2"],
    ["--config=dense_cls.yaml", "--model.encoder.depth=2"],
)
BY_LOSS = [
    f"--{part}={value}"
    for name in ("checkpoint", "early_stopping")
    for part, value in ((f"{name}.monitor", "val/loss"), (f"{name}.mode", "min"))
]
KINDS = {
    "lstm": [*NER, "--model.optimizer.lr=0.02", "--logger=wandb"],
    "transformer": [*NER, "--model.encoder.block=block/transformer.yaml", *BY_LOSS, "--logger=csv"],
    "classification": [*CLS, "--model.optimizer.lr=0.02", "--ema.decay=0.5", "--logger=csv"],
    "accumulation": [
        *NER,
        "--model.encoder.block=block/conv.yaml",
        "--trainer.accumulate_grad_batches=3",
        "--ema.decay=0.9",
        *BY_LOSS,
        "--logger=csv",
    ],
}
VARIANTS = {
    (kind, processes): (kind, processes) for kind in KINDS for processes in (1, 2)
}  # pytest compares identity
EVENTS = ("SIGTERM", "SIGUSR1", "SIGKILL", "SIGINT", "exception")
PLACES = {  # in the order in which a run comes to them; the largest number that is reached twice in a row
    "batch": 7,
    "validation batch": 5,
    "save": 8,
    "epoch end": 1,
    "start": 2,
    "first second": 1000,
    "test": 10,
    "any time": 1000,
    "after the end": 1000,
}
TIMED = ("first second", "any time", "after the end")
SECONDS = 120  # whoever takes longer hangs
fork = multiprocessing.get_context("fork")  # the imports are done once
for module in ("matplotlib.figure", "wandb"):  # which are imported late
    importlib.import_module(module)


class Point(NamedTuple):
    """Where a process is stopped, and how.

    Attributes:
        place: one of `PLACES`.
        number: counted from 1: of a batch, of a write within a save, of a batch or a write of the test, or of the
            thousandths of a second or, for `any time`, of what the whole run takes.
        event: a signal, or an exception.
        rank: of the process that gets it.
    """

    place: str
    number: int
    event: str
    rank: int


def points(rng: random.Random, processes: int, places: list[str]) -> list[Point]:
    """Points at these places, in an order in which each is reached."""
    chosen = []
    for place in sorted(places, key=list(PLACES).index):
        number = rng.randint(1, PLACES[place])
        event = rng.choice(EVENTS)
        if place in TIMED and event == "exception":
            event = "SIGKILL"  # an exception has a place
        writes = place == "save" or (place == "test" and number > 3)  # only the first process does
        chosen.append(Point(place, number, event, 0 if writes else rng.randrange(processes)))
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Two points a run: the second one stops a run that was resumed. Of a kind, a third runs on two processes."""
    n, seed = (int(str(metafunc.config.getoption(name))) for name in ("n", "seed"))
    cases = []
    for k, kind in enumerate(KINDS):
        rng = random.Random(f"{seed} {kind}")
        runs = range(k, n, len(KINDS))
        places = [
            place for _ in runs for place in rng.sample(list(PLACES), len(PLACES))
        ]  # each as often as others
        for j, _ in enumerate(runs):
            processes = 2 if (j + k) % 3 == 2 else 1
            stops = points(rng, processes, places[2 * j : 2 * j + 2])
            cases.append(
                pytest.param(VARIANTS[kind, processes], stops, id=f"{kind}-{processes}-{j}")
            )
    cases.sort(key=lambda case: str(case.id).rpartition("-")[0])  # those that share a whole run
    metafunc.parametrize(("whole", "stops"), cases, indirect=["whole"])


class Whole(NamedTuple):
    """A run that nothing stopped."""

    options: list[str]
    processes: int
    run: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    kind, processes = request.param
    run = tmp_path_factory.mktemp("whole") / "run"
    options = [*SMALL, *KINDS[kind], f"--trainer.devices={processes}", "--trainer.accelerator=cpu"]
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
        if point.place == "after the end":
            assert start(options, whole.processes, None, run) == [0] * whole.processes
            assert_same_runs(run, whole.run)
        codes = start(
            options,
            whole.processes,
            point,
            run,
            whole.seconds if point.place == "any time" else 1.0,
        )
        assert_codes(codes, point)
    assert start(options, whole.processes, None, run) == [0] * whole.processes
    assert_same_runs(run, whole.run)
    if "--logger=wandb" in options:
        assert_one_wandb_run(run)


def assert_codes(codes: list[int], point: Point) -> None:
    """The process that was stopped says so; in training, a signal that it can handle stops all."""
    expected = code_of(point)
    number = int(getattr(signal, point.event, 0))
    if point.place in TIMED:  # it may have ended before, or may not yet have had its handlers
        assert codes[point.rank] in (expected, 0, -number), f"{point}: {codes}"
    elif point.place == "test" and point.event == "SIGUSR1":
        assert codes == [0] * len(codes), f"{point}: {codes}"
    elif point.place == "test" or point.event in ("SIGKILL", "exception"):
        assert codes[point.rank] == expected, f"{point}: {codes}"
    else:
        assert codes == [expected] * len(codes), f"{point}: {codes}"


def code_of(point: Point) -> int:
    if point.event == "exception":
        return 1
    number = int(getattr(signal, point.event))
    return -number if point.event == "SIGKILL" else 128 + number


# -- processes --------------------------------------------------------------------------------------------------------


def start(
    options: list[str], processes: int, point: Point | None, run: Path, seconds: float = 0
) -> list[int]:
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
    if point and point.place in TIMED:
        workers[point.rank].join(seconds * point.number / 1000)
        if workers[point.rank].is_alive():
            os.kill(int(workers[point.rank].pid or 0), getattr(signal, point.event))
    return wait(workers, broken=point is not None)


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


def work(
    options: list[str], rank: int, processes: int, port: int, point: Point | None, log: Path
) -> None:
    """What main.py does, in a process that has the imports behind it."""
    stop_signals.install()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    torch.set_num_threads(1)
    os.environ.pop("WANDB_SERVICE", None)  # that of other tests
    if processes > 1:  # as torchrun starts them
        launched = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "GROUP_RANK": 0,
            "WORLD_SIZE": processes,
            "MASTER_PORT": port,
        }
        launched |= {
            "LOCAL_WORLD_SIZE": processes,
            "MASTER_ADDR": "127.0.0.1",
            "TORCHELASTIC_RUN_ID": "test",
        }
        os.environ.update({name: str(value) for name, value in launched.items()})
    if point and point.place not in TIMED:
        arm(point)
    try:
        sys.exit(main(options))
    except KeyboardInterrupt:
        sys.exit(130)


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

    def before(cls: type, name: str, applies: Callable[[Any], bool] = lambda _: True) -> None:
        """Count the calls of a method."""
        method = getattr(cls, name)

        def counted(self: Any, *given: Any, **named: Any) -> Any:
            if applies(self):
                act()
            return method(self, *given, **named)

        patch.setattr(cls, name, counted)

    def writes_within(cls: type, name: str) -> None:
        """Count what a method has written to the disk."""
        method, fsync = getattr(cls, name), os.fsync

        def counted_fsync(handle: int) -> None:
            act()
            fsync(handle)

        def counted(self: Any, *given: Any, **named: Any) -> Any:
            with pytest.MonkeyPatch.context() as within:
                within.setattr(os, "fsync", counted_fsync)
                return method(self, *given, **named)

        patch.setattr(cls, name, counted)

    patch = pytest.MonkeyPatch()  # never undone: the process ends
    if point.place == "start":  # before and after Lightning has its handlers
        before(Report, "on_fit_start")
        before(TextDataModule, "train_dataloader")
    elif point.place == "batch":
        before(BatchLoader, "_share", lambda loader: loader.shuffle)
    elif point.place == "validation batch":
        before(BatchLoader, "_share", lambda loader: not loader.shuffle)
    elif point.place == "epoch end":
        before(Last, "on_train_epoch_end")
    elif point.place == "save":
        writes_within(AtomicIO, "save_checkpoint")
    elif point.place == "test":
        before(Report, "on_test_batch_end")
        writes_within(Report, "teardown")
