"""Commands as users type them, in this process and in one of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from residense.cli import main

ROOT = Path(__file__).parents[2]


def predict(capfd: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert main(["predict", *options]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def run(*words: str, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "main.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)  # type: ignore[call-overload]
