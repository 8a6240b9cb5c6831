"""A run directory has one holder."""

import errno
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from residense.errors import UsageError
from residense.run.lock import claim, release

CLAIM = """
import sys
from pathlib import Path
from residense.run.lock import claim

try:
    claim(Path(sys.argv[1]))
except ValueError as error:
    sys.exit(str(error))
print("claimed", flush=True)
sys.stdin.read()
"""


def claim_elsewhere(run: Path) -> subprocess.Popen[str]:
    """Claim a directory in another process; it ends once its standard input is closed."""
    command = [sys.executable, "-c", CLAIM, str(run)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_run_directory_has_one_holder(tmp_path: Path, job: Callable[..., None]) -> None:
    job("7")
    with claim_elsewhere(tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        expected = f"is in use by process {holder.pid} on {socket.gethostname()}, job 7$"
        with pytest.raises(UsageError, match=expected):
            claim(tmp_path)
        holder.kill()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".holder"}
    claim(tmp_path)  # nothing has to be removed by hand
    claim(tmp_path)  # and a second run of the same process goes on
    with claim_elsewhere(tmp_path) as loser:
        _, errors = loser.communicate()
        assert loser.returncode == 1 and f"is in use by process {os.getpid()} on" in errors
    release(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_lock_does_not_outlive_its_process_in_a_child(tmp_path: Path) -> None:
    script = CLAIM.replace(
        "sys.stdin.read()", "if os.fork(): time.sleep(1), os._exit(0)\ntime.sleep(9)"
    )
    script = f"import os, time\n{script}"
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    assert parent.wait() == 0
    claim(tmp_path)
    release(tmp_path)


def test_a_lock_is_released_by_its_holder_alone(tmp_path: Path) -> None:
    claim(tmp_path)
    release(tmp_path)
    with claim_elsewhere(tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        release(tmp_path)  # once more, as a process does when it ends
        with pytest.raises(UsageError, match="is in use by process"):
            claim(tmp_path)


def test_a_lock_server_that_is_missing_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", missing)
    claim(tmp_path)
    assert f"{tmp_path} cannot be locked (No locks available)" in capsys.readouterr().err
    release(tmp_path)


def test_a_filesystem_without_locks_gets_a_file_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    (tmp_path / ".lock").write_text("1\nelsewhere\n")
    with (
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(
            UsageError, match=r"in use by another process; if that has ended: rm .*/\.lock"
        ),
    ):
        claim(tmp_path)
    (tmp_path / ".lock").unlink()
    with pytest.warns(UserWarning, match="flock not supported"):
        claim(tmp_path)
    release(tmp_path)
    assert not any(tmp_path.iterdir())


def claim_all(folder: Path, together: Any, won: Any) -> None:
    """Claim one directory after another, each at the same moment as the other process."""
    for run in sorted(folder.iterdir()):
        together.wait()
        try:
            claim(run)
            won.put(run.name)
        except UsageError:
            pass
    won.close()
    won.join_thread()
    together.wait()  # a process that ends frees what it has claimed
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_of_two_claims_at_the_same_moment_one_wins(stale: bool, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / str(number)).mkdir()
        if stale:
            (tmp_path / str(number) / ".lock").touch()  # of a process that was killed
    fork = multiprocessing.get_context("fork")
    together, won = fork.Barrier(2), fork.Queue()
    for _ in range(2):
        fork.Process(target=claim_all, args=(tmp_path, together, won)).start()
    assert len({won.get(timeout=60) for _ in range(60)}) == 60
    for process in multiprocessing.active_children():
        process.join()
    assert won.empty() and len([*tmp_path.rglob(".lock")]) == 60
