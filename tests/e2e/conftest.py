"""A run that nothing disturbed."""

import shutil
from pathlib import Path

import pytest

from residense.cli import main

from .failures import SMALL


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*SMALL, f"--run_dir={run}"]) == 0
    return run


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))
