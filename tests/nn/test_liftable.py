"""The package residense.nn works alone: with torch, numpy and the tag rules, and nothing else."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import residense.nn
import residense.tags

NN = Path(residense.nn.__file__).parent
TAGS = Path(residense.tags.__file__)
LIBRARIES = {"torch", "numpy", *sys.stdlib_module_names}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", [*sorted(NN.rglob("*.py")), TAGS], ids=lambda path: path.name)
def test_each_file_imports_only_torch_numpy_and_its_own_package(path: Path) -> None:
    for name in imports(path):
        own = name == "residense.tags" or f"{name}.".startswith("residense.nn.")
        assert own or name.split(".")[0] in LIBRARIES, name


@pytest.mark.slow
def test_the_tests_pass_on_a_copy_in_an_empty_package(tmp_path: Path) -> None:
    package = tmp_path / "src" / "residense"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(NN, package / "nn", ignore=skipped)
    shutil.copy(TAGS, package)
    (package / "__init__.py").touch()
    shutil.copytree(Path(__file__).parent, tmp_path / "tests" / "nn", ignore=skipped)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(package.parent)}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        found = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-5000:]
        return found.stdout

    where = run("-c", "import residense, residense.nn as nn; print(nn.__file__)")
    assert where.strip() == str(package / "nn" / "__init__.py")
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not slow"]
    assert " passed" in run("-m", "pytest", *options, "tests/nn")
