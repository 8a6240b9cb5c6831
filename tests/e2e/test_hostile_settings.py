"""Names that settings must not be able to run, by every route that settings arrive."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def hostile(checkpoint: str, tmp_path: Path) -> Run:
    def run(*options: str) -> list[dict[str, Any]]:
        command = [
            sys.executable,
            str(HERE / "hostile_settings.py"),
            checkpoint,
            str(tmp_path),
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def drawn(request: pytest.FixtureRequest) -> list[str]:
    return [
        f"--n={request.config.getoption('--n')}",
        f"--seed={request.config.getoption('--seed')}",
    ]


@pytest.mark.slow
def test_hostile_settings_never_execute(hostile: Run, request: pytest.FixtureRequest) -> None:
    """`pytest tests/e2e/test_hostile_settings.py -m slow --n 70` draws 70 for each of the 9 routes."""
    cases = hostile(*drawn(request))
    assert len({case["route"] for case in cases}) == 9
    for case in cases:
        assert_refused(case)


@pytest.mark.slow
def test_hostile_settings_never_execute_as_commands(
    hostile: Run, request: pytest.FixtureRequest
) -> None:
    for case in hostile("--commands=10", drawn(request)[1]):
        assert_refused(case)


def assert_refused(case: dict[str, Any]) -> None:
    assert not case["executed"], case
    accepts = case["route"] in (
        "init_from",
        "export",
    )  # which take weights from it, and settings as data
    assert case["code"] == (0 if accepts else 2), case
    assert accepts or any(line.startswith("error: ") for line in case["output"].splitlines()), case


@pytest.mark.slow
def test_without_the_checks_they_do(hostile: Run) -> None:
    cases = hostile("--n=20", "--seed=0", "--unchecked")
    executed = {
        (case["slot"], case["payload"], case["form"], case["route"])
        for case in cases
        if case["executed"]
    }
    assert len(executed) >= 18
