"""Where a run may be kept."""

import os
from pathlib import Path

import pytest

from residense.errors import UsageError
from residense.run.directory import RunDirectory


@pytest.mark.parametrize("below", ["", "run"])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_a_run_directory_that_is_none(kind: str, below: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("kept") if kind == "file" else wrong.symlink_to(tmp_path / "nothing")
    with pytest.raises(
        UsageError, match=rf"^{wrong} is not a folder.*name another folder with --run_dir$"
    ):
        RunDirectory.create("name", str(wrong / below))
    assert os.path.lexists(wrong) and (kind != "file" or wrong.read_text() == "kept")


def test_two_runs_of_one_second_have_two_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    first, second = (RunDirectory.create("name", None) for _ in range(2))
    assert first.path != second.path
