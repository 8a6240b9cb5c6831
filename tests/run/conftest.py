"""A process that is a task of a SLURM job."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture
def job(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., None]:
    """Make this process a task of a job, where there is a scontrol."""
    program = tmp_path_factory.mktemp("bin") / "scontrol"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def become(number: str = "7", **variables: str) -> None:
        for name, value in {"SLURM_JOB_ID": number, "SLURM_STEP_ID": "0", **variables}.items():
            monkeypatch.setenv(name, value)

    return become
