"""A fork under a name of its own: nothing of the old name is left, and it works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import residense

ROOT = Path(__file__).parents[2]
NAME = residense.__name__  # whatever the project is called by now
NEW = "_".join(("acme", "tagger"))  # not written out here: the way back would take it for the name


def title(name: str) -> str:
    return name.replace("_", " ").title()


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """A copy of the project with one change that was never committed, and no git."""
    passed = shutil.ignore_patterns(
        ".git", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "runs", "wandb", ".venv"
    )
    copy = Path(shutil.copytree(ROOT, tmp_path / "fork", ignore=passed))
    (copy / "notes.txt").write_text(
        f"{NAME}, {NAME.upper()}_CACHE and {title(NAME)}; not {NAME}s\n"
    )
    (copy / "picture.bin").write_bytes(b"\0" + NAME.encode())
    return copy


def rename(fork: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(fork / "scripts/rename.py"), *names], capture_output=True, text=True
    )


def contents(fork: Path) -> dict[str, bytes]:
    found = (
        path
        for path in fork.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(fork).parts
    )
    return {str(path.relative_to(fork)): path.read_bytes() for path in found}


@pytest.mark.parametrize("git", [False, True])
def test_nothing_of_the_old_name_is_left(fork: Path, git: bool) -> None:
    if git:
        subprocess.run(["git", "init", "-q"], cwd=fork, check=True)
    before = contents(fork)
    done = rename(fork, NEW)
    assert done.returncode == 0, done.stderr
    assert f"src/{NAME}/ is now src/{NEW}/" in done.stdout and "README.md: " in done.stdout
    after = contents(fork)
    assert after.keys() == {name.replace(f"src/{NAME}/", f"src/{NEW}/") for name in before}
    left = [
        name
        for name, content in after.items()
        if re.search(rf"(?i)\b{NAME}", content.decode("latin-1"))
    ]
    assert {*left} - {"LICENSE"} == {"notes.txt", "picture.bin"} and after["LICENSE"] == before[
        "LICENSE"
    ]
    assert (
        after["notes.txt"].decode() == f"{NEW}, {NEW.upper()}_CACHE and {title(NEW)}; not {NAME}s\n"
    )
    assert rename(fork, NEW).stdout == f"the project is already called {NEW}: nothing to do\n"
    assert contents(fork) == after
    assert rename(fork, NAME).returncode == 0
    assert contents(fork) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Project", "use lowercase letters"),
        ("2fast", "use lowercase letters"),
        ("class", "use lowercase letters"),
        ("../x", "use lowercase letters"),
        ("json", "a module of the standard library"),
        ("torch", "already contains 'torch'"),
        ("data", "already contains 'data'"),
        ("tests", "already contains 'tests'"),
    ],
)
def test_a_name_that_is_none_changes_nothing(name: str, message: str, fork: Path) -> None:
    before = contents(fork)
    done = rename(fork, name)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert contents(fork) == before


def test_without_a_name_it_says_how_to_use_it(fork: Path) -> None:
    assert "python scripts/rename.py my_project" in rename(fork).stderr


@pytest.mark.slow
def test_a_renamed_project_trains(fork: Path, tmp_path: Path) -> None:
    assert rename(fork, "my_project").returncode == 0
    few = [
        "--data.synthetic.size=300",
        "--trainer.max_epochs=1",
        f"--run_dir={tmp_path}/run",
        "--logger=csv",
    ]
    surroundings = os.environ | {
        "PYTHONPATH": str(fork / "src"),
        "MY_PROJECT_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "main.py", "fit", "--config=dense_ner.yaml", *few]
    done = subprocess.run(command, cwd=fork, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").glob("*.npz"))
    assert "class_path: my_project.Tagger" in (tmp_path / "run" / "config.yaml").read_text()
