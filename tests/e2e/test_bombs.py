"""Small files that unpack, expand or nest without measure are refused, or read in few seconds and little memory.

    pytest tests/e2e/test_bombs.py -m "slow or not slow"

Each kind of bomb is a function in `bombs/` that writes a file and returns what reads it.
"""

import itertools
import os
import signal
from pathlib import Path

import pytest

from .bombs import archives, parquet, settings, text
from .bombs.cost import BYTES, GIVE_UP, assert_bounded, cost
from .bombs.table import Reader

pytest.importorskip("datasets")

DISK = 100 << 20
BOMBS = archives.BOMBS | parquet.BOMBS | settings.BOMBS | text.BOMBS


FAST = (
    "yaml_aliases_in_a_fragment_of_a_fragment",
    "checkpoint_shared_settings",
    "checkpoint_that_is_compressed",
    "parquet_tokens_in_a_dictionary",
    "parquet_texts_in_a_dictionary",
    "parquet_deep_features",
    "gzip_in_gzip",
    "zip_of_very_many_members",
    "json_nested_lists",
    "json_spans_that_overlap",
    "csv_quotes_alone",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in BOMBS]
)
def test_a_bomb_is_refused_or_read_within_bounds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "corpus").mkdir()
    read = BOMBS[name](tmp_path / "corpus")
    assert sum(file.stat().st_size for file in (tmp_path / "corpus").iterdir()) < 16 << 20
    assert_bounded(cost(read))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < DISK


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (lambda: b"x" * (BYTES + (BYTES >> 2)), r"memory=1\d{9}, error=None"),
        (lambda: bytes(2 * GIVE_UP), "MemoryError"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "exit code -9"),
        pytest.param(lambda: all(itertools.repeat(1)), "exit code -9", marks=pytest.mark.slow),
    ],
    ids=["large", "larger", "broken", "killed", "slow"],
)
def test_what_is_not_bounded_is_noticed(read: Reader, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        assert_bounded(cost(read))
