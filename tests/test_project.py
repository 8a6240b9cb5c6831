"""What the project asks of its surroundings."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

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
        assert named and all(f"def {test}(" in (ROOT / file).read_text() for file, test in named), row
