"""What the project asks of its surroundings."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from residense.run.checkpoints import Content
from residense.run.directory import RunDirectory

ROOT = Path(__file__).parents[1]


def test_versions_that_were_tampered_with_are_not_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (lightning,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "lightning")
    assert list(lightning.specifier.filter(["2.6.2", "2.6.3", "2.6.6"])) == ["2.6.6"]
    workflows = [path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    actions = [action for workflow in workflows for action in re.findall(r"uses: (\S+)", workflow)]
    assert actions and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in actions)


def test_each_pain_is_held_by_tests_that_are_there() -> None:
    pains = (ROOT / "docs" / "pains.md").read_text()
    rows = [line for line in pains.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == [*range(1, 28)]
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named and all(f"def {test}(" in (ROOT / file).read_text() for file, test in named), (
            row
        )


UNTYPED = {"test_step", "experiment", "data_set", "column"}  # as Lightning and `datasets` have it
UNTYPED |= {"forward", "loss", "decode", "update", "unbatch"}  # each task has its own types
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def signatures(
    node: ast.AST, name: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The public functions of a module, and the methods of its public classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and child.name[0] != "_":
            yield from signatures(child, f"{name}.{child.name}")
        elif isinstance(child, FUNCTIONS) and (child.name[0] != "_" or child.name == "__init__"):
            yield f"{name}.{child.name}", child


def test_any_hides_no_public_signature() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name, function in signatures(ast.parse(path.read_text()), path.stem):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            hints = [a.annotation for a in arguments if a.arg not in ("self", "cls")] + [
                function.returns
            ]
            assert all(hint is not None for hint in hints[:-1]), (
                f"{name} has an argument without a type"
            )
            hidden = "Any" in {ast.unparse(hint) for hint in hints if hint is not None}
            assert not hidden or function.name in UNTYPED, f"{name} takes or returns Any"


def strings(path: Path) -> set[str]:
    """The string constants of a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_one_module_knows_the_keys_of_a_checkpoint_and_one_the_files_of_a_run() -> None:
    run = vars(RunDirectory("run")).values()
    files = {path.name for path in run if path.suffix} | {"command.txt", "git.txt"}
    keys = {key for key in Content.__annotations__ if "_" in key}  # the others mean other things
    owners = {"directory.py": files, "checkpoint": keys}  # checkpoints.py and checkpoint_io.py
    assert len(files) > 6 and len(keys) > 6
    for path in (ROOT / "src" / "residense").rglob("*.py"):
        for owner, names in owners.items():
            assert path.name.startswith(owner) or not names & strings(path), path
