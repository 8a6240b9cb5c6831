"""One SLURM cluster for all tests that need it."""

import os
import shutil
from collections.abc import Iterator

import pytest

from .cluster import PATH, PROGRAMS, Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two idle nodes. Without a SLURM the tests are skipped, unless REQUIRE_SLURM says that there must be one."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        reason = f"no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge"
        (pytest.fail if os.environ.get("REQUIRE_SLURM") else pytest.skip)(reason)
    cluster = Cluster()
    cluster.start()
    yield cluster
    cluster.stop()
