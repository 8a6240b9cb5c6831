"""Interrupt many runs at random points, resume them, and compare them with uninterrupted runs.

    python scripts/experiments/soak.py --n 120                 120 runs of four kinds, each stopped twice
    python scripts/experiments/soak.py --n 120 --seed 7        the same points again
    python scripts/experiments/soak.py --slurm --n 20          20 signals on a real SLURM

These are the tests `pytest -m slow tests/e2e/test_kill_points.py` and
`pytest -m slurm tests/e2e/slurm` with more runs.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
KILLED = ("-m", "slow", "-n", "2", "tests/e2e/test_kill_points.py")
SLURM = ("-m", "slurm", "-n", "0", "tests/e2e/slurm/test_training.py")


def soak(tests: tuple[str, ...], n: int, seed: int) -> tuple[list[ElementTree.Element], int]:
    """Run the tests; return their results and the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-ojunit_family=xunit1",
            "--dist=loadgroup",
            *tests,
        ]
        command += [f"--n={n}", f"--seed={seed}"]
        code = subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT).returncode
        return list(ElementTree.parse(report).iter("testcase")), code


def table(cases: list[ElementTree.Element]) -> str:
    """Return a table with a row for each kind of run: points by event and place, and differences."""
    points: dict[str, list[tuple[str, str]]] = defaultdict(list)
    runs, failed = Counter[str](), Counter[str]()
    for case in cases:
        kind = case.get("name", "").partition("[")[2].rpartition("-")[0] or case.get("name", "")
        found = [
            p.get("value", "").split("|") for p in case.iter("property") if p.get("name") == "point"
        ]
        points[kind] += [(place, event) for place, event in found]
        runs[kind] += 1
        failed[kind] += bool(case.findall("failure") or case.findall("error"))
    lines = ["| kind | runs | points | events | places | failed |", "|---|---|---|---|---|---|"]
    for kind, stops in points.items():
        places, events = (
            (_counts(Counter(part)) for part in zip(*stops, strict=True)) if stops else ("", "")
        )
        lines.append(
            f"| {kind} | {runs[kind]} | {len(stops)} | {events} | {places} | {failed[kind]} |"
        )
    return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


def main() -> None:
    """Run the tests and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=20, help="number of runs, or of signals on SLURM")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="seed of the points"
    )
    parser.add_argument("--slurm", action="store_true", help="send signals on a real SLURM")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    begin = time.monotonic()
    cases, code = soak(SLURM if options.slurm else KILLED, options.n, options.seed)
    print(
        table(cases),
        f"seed {options.seed}, {(time.monotonic() - begin) / 60:.0f} minutes",
        sep="\n",
    )
    sys.exit(code)


if __name__ == "__main__":
    main()
