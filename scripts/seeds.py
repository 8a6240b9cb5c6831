"""Train with several seeds and report mean and standard deviation of the test scores.

    python scripts/seeds.py 3 runs/wnut17 --config dense_ner.yaml --data.path path/to/wnut17

The arguments are the number of seeds, a directory for the runs, and the options of `main.py fit`.
Finished runs are reused and interrupted ones resumed if their options and data have not changed.
"""

import io
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import yaml

MAIN = Path(__file__).parents[1] / "main.py"
NO_EFFECT = ("run_dir", "ckpt_path", "config", "name", "logger", "project", "output")  # on scores
NAMES = {"f1": "F1", "accuracy": "accuracy", "macro_f1": "macro F1", "class_accuracy": "intents"}


def scores(runs: Mapping[Path, list[str]]) -> list[dict[str, float]]:
    """Return the test scores of runs with given options; check all options, then train."""
    try:
        for run, options in runs.items():
            check(run, options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    return [score(run, options) for run, options in runs.items()]


def check(run: Path, options: list[str]) -> None:
    """Raise an error if options are invalid or differ from those of an existing run.

    Raises:
        ValueError: An option or the data of a split differs; the message names it.
    """
    # imported here, so that listing the cells of a sweep is quick
    from residense.settings import configs
    from residense.settings.options import Options

    now = Options("fit", [f"--run_dir={run}", *options])
    finished = (run / "test.json").exists()
    if not finished and not any((run / "checkpoints").glob("*.ckpt")):
        return
    before = configs.read(run / "config.yaml")
    changed = configs.differences(_experiment(before), _experiment(yaml.safe_load(now.as_yaml())))
    if changed:
        shown = [
            f"--{name} was {_short(old)} and is {_short(new)}"
            for name, (old, new) in changed.items()
        ]
        more = f" and {len(shown) - 3} more" * (len(shown) > 3)
        raise ValueError(
            f"{run} contains a different run: {'; '.join(shown[:3])}{more}: use another directory"
        )
    if finished:  # any other run compares the data when it is resumed
        check_data_and_code(run, now.make_data())


def check_data_and_code(run: Path, data: Any) -> None:
    """Raise an error if a finished run was trained on other data; warn if by other code.

    Raises:
        ValueError: Splits differ; the message names them.
    """
    from residense import __version__
    from residense.run.checkpoint_io import read
    from residense.run.environment import git_state

    checkpoint = read(run / "checkpoints" / "last.ckpt")
    with redirect_stderr(io.StringIO()):  # the run itself printed it
        data.setup("fit")
    before = checkpoint.data_state(data).get("fingerprint")
    now = data.fingerprint
    if before is None:
        raise ValueError(f"{run} does not record its training data: use another directory")
    if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        raise ValueError(
            f"{run} was trained on other data ({', '.join(changed)} changed): use another directory"
        )
    if checkpoint.version != __version__ or _code((run / "git.txt").read_text()) != _code(
        git_state()
    ):
        print(
            f"{run} was trained with another version of the code, see {run / 'git.txt'}",
            file=sys.stderr,
        )


def _experiment(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in NO_EFFECT}


def _short(value: Any) -> str:
    return (
        value.rsplit(".", 1)[-1]
        if isinstance(value, str) and value.startswith("residense.")
        else str(value)
    )


def _code(state: str) -> list[str]:
    """Return the commit and uncommitted changes; files unknown to git do not count as code."""
    return [part for part in state.split("# git ") if part.startswith(("rev-parse HEAD", "diff"))]


def score(run: Path, options: list[str]) -> dict[str, float]:
    """Return the test scores of the run in a directory, after training it if necessary."""
    if not (run / "test.json").exists():
        command = [
            sys.executable,
            str(MAIN),
            "fit",
            f"--run_dir={run}",
            *options,
            "--ckpt_path=last",
        ]
        if code := subprocess.run(command).returncode:
            sys.exit(code)
    if not (run / "test.json").exists():
        sys.exit(
            f"error: {run} has no test scores: is there a test split, and --test_after_fit true?"
        )
    results = json.loads((run / "test.json").read_text())
    unseen = results.get("compared", {}).get("unseen in training", {})
    found = {said: 100 * results[name] for name, said in NAMES.items() if name in results}
    return found | ({"F1 unseen": 100 * unseen["f1"]} if unseen.get("support") else {})


def main() -> None:
    """Parse the command line, train, and print one line for each score."""
    if len(sys.argv) < 4 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    folder, options = Path(sys.argv[2]), sys.argv[3:]
    rows = scores(
        {
            folder / f"seed-{n}": [f"--seed_everything={n}", *options]
            for n in range(int(sys.argv[1]))
        }
    )
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(
            f"{name:10s} {statistics.mean(values):6.2f} +- {spread:.2f}   {', '.join(f'{v:.2f}' for v in values)}"
        )


if __name__ == "__main__":
    main()
