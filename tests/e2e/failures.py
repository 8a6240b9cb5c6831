"""Small runs that fail: how they are started, and how they must end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .runs import OPTIONS

MAIN = Path(__file__).parents[2] / "main.py"
SMALL = [  # one of 1.9 MB: three fit on a disk of 6 MB, so the fourth, while last.ckpt is replaced, does not
    *OPTIONS,
    "--model.embeddings.dim=60",
    "--model.encoder.block=block/conv.yaml",
    "--model.encoder.connection.growth_rate=32",
]
PAGE = 4096


def some_slow(fast: Any, *others: Any) -> list[Any]:
    return [fast, *(pytest.param(*values, marks=pytest.mark.slow) for values in others)]


def command(*options: str) -> subprocess.Popen[str]:
    """What a user types, in a process of its own."""
    return subprocess.Popen([sys.executable, MAIN, *options], stdout=-1, stderr=-1, text=True)


def assert_refused(code: int, errors: str, *expected: str) -> None:
    """The command ended with one clear line."""
    assert code == 2 and "Traceback" not in errors, errors
    assert errors.count("error:") == 1 and errors.splitlines()[-1].startswith("error: ")
    for words in expected:
        assert words in errors.splitlines()[-1]


def assert_tidy(run: Path, ended: bool = True) -> None:
    """No temporary file was left and, if the process that ran there has ended, no lock."""
    assert {path.name for path in run.rglob(".*")} <= (set() if ended else {".lock", ".holder"})
