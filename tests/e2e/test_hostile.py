"""Whatever a file, a config or a checkpoint holds: a clear error or a right result, no traceback, nothing half-written.

    pytest tests/e2e/test_hostile.py -m slow --n 40 --seed 1

draws 40 cases of each kind in this process, and half as many of all kinds as real commands. A failure names its case.
"""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from residense.cli import main

from .commands import ROOT
from .hostile.cases import KINDS, Command

pytestmark = pytest.mark.slow
SECONDS = 120  # longer is a hang


def wrong(code: Any, errors: str) -> str | None:
    """What is wrong with how a command ended, if anything."""
    said = [i for i, line in enumerate(errors.splitlines()) if line.startswith("error: ")]
    if "Traceback" in errors:
        return "a traceback"
    if code == 2 and (
        len(said) != 1
        or len(errors.splitlines()) - said[0] > 5
        or max(map(len, errors.splitlines())) > 1500
    ):
        return "not one clear error"
    if code not in (0, 2) or (code == 0) == bool(said):
        return f"ended with {code}"
    return left_behind(code)


def left_behind(code: int) -> str | None:
    """What is half-written, or was run, if anything."""
    if Path("evil").exists():
        return "code of a checkpoint was run"
    for path in Path().rglob("*"):
        if path.name.startswith(".") and path.name not in (".lock", ".holder"):
            return f"{path} is left behind"
        if path.suffix == ".ckpt" and path.name != "own.ckpt":
            torch.load(path, weights_only=True)
        if path.name in (
            "test.json",
            "metrics.csv",
            "config.yaml",
        ) and not path.read_text().endswith("\n"):
            return f"{path} is cut off"
    found = Path("found.jsonl")
    if code == 0 and found.exists():
        found_texts = [json.loads(line)["text"] for line in found.read_text().split("\n")[:-1]]
        if Path("input.txt").exists() and found_texts != lines_of(Path("input.txt")):
            return "other texts than were given"
    return None


def lines_of(path: Path) -> list[str]:
    """One text a line, LF or CRLF; the last line ends, it does not begin another."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """In an empty folder, with time that is limited."""

    def hang(*_: Any) -> None:
        raise TimeoutError("a hang")

    folder.mkdir(parents=True)
    before, handler = Path.cwd(), signal.signal(signal.SIGALRM, hang)
    os.chdir(folder)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        os.chdir(before)


def in_process(command: Command) -> tuple[Any, str]:
    """How a command ended, and what it said of errors."""
    errors = io.StringIO()
    path = list(sys.path)
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code: Any = main(command)
        except BaseException:
            code = "an exception"
            traceback.print_exc()
    sys.path[:] = path
    os.environ.pop("RESIDENSE_RUN_DIR", None)
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)
    return code, errors.getvalue()


def as_command(command: Command) -> tuple[Any, str]:
    """The same of a process."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stderr


def failures(
    kinds: list[Any], n: int, seed: int, folder: Path, before: Path, run: Callable[[Command], Any]
) -> list[str]:
    """Cases that did not end as they should, with all that repeats them."""
    found = []
    for i in range(n):
        kind = kinds[i % len(kinds)]
        rng = random.Random(f"{kind.__name__} {seed} {i}")
        with standing_in(folder / f"{kind.__name__}-{i}"):
            command = kind(rng, before)
            code, errors = run(command)
            if fault := wrong(code, errors):
                found.append(f"{kind.__name__} {i}: {fault}: {command}\n{errors[-1500:]}")
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_hostile_input(
    kind: Any, request: pytest.FixtureRequest, tmp_path: Path, trained: Path
) -> None:
    n, seed = (int(str(request.config.getoption(name))) for name in ("n", "seed"))
    found = failures([kind], n, seed, tmp_path, trained, in_process)
    assert not found, f"{len(found)} of {n}, --seed {seed}:\n\n" + "\n\n".join(found)


def test_hostile_commands(request: pytest.FixtureRequest, tmp_path: Path, trained: Path) -> None:
    n, seed = (int(str(request.config.getoption(name))) for name in ("n", "seed"))
    found = failures(KINDS, max(1, n // 2), seed + 1, tmp_path, trained, as_command)
    assert not found, f"{len(found)}, --seed {seed}:\n\n" + "\n\n".join(found)
