"""Run a grid of configs/sweeps without W&B.

    python scripts/sweep.py configs/sweeps/wiring.yaml                 print the options of each cell
    python scripts/sweep.py configs/sweeps/wiring.yaml runs/wiring     train and report all cells

Options after the directory are added to each cell. All cells are checked before the first one is
trained. Finished runs are reused and interrupted ones resumed if their options and data have not
changed. `scripts/submit.py --sweep FILE` submits the same cells as a SLURM array.
"""

import itertools
import re
import shlex
import sys
from pathlib import Path

from seeds import scores

from residense.errors import UsageError
from residense.settings import configs


def cells(path: Path) -> list[list[str]]:
    """Return the options of `main.py fit` for each cell; the last parameter varies fastest.

    Raises:
        SystemExit: The file is not a grid that can be run.
    """
    if not path.is_file():
        sys.exit(f"error: {path} does not exist; configs/sweeps/ has examples")
    try:
        sweep = configs.read(path)
        given = [
            (name, [p["value"]] if "value" in p else p.get("values"))
            for name, p in sweep["parameters"].items()
        ]
        method, command = sweep["method"], sweep["command"]
        fixed = command[command.index("fit") + 1 : command.index("${args}")]
    except UsageError as error:
        sys.exit(f"error: {error}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = (
            f"{error.args[0]} is missing"
            if isinstance(error, KeyError)
            else str(error).splitlines()[0]
        )
        sys.exit(f"error: {path}: not a sweep as in configs/sweeps/: {reason}")
    if method != "grid" or not all(isinstance(values, list) for _, values in given):
        sys.exit(
            f"error: {path}: not a grid (`method: grid` with `values` of each parameter); "
            "use `wandb sweep`"
        )
    pairs = ([f"--{name}={value}" for value in values] for name, values in given)
    return [[*fixed, *cell] for cell in itertools.product(*pairs)]


def folder_of(cell: list[str]) -> str:
    """Return a directory name for the values of a cell."""
    return "-".join(re.sub(r"[^\w.]+", "_", word.partition("=")[2]) for word in cell)


def main() -> None:
    """Print the cells or train them."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    found = cells(Path(sys.argv[1]))
    if len(sys.argv) == 2:
        print("\n".join(map(shlex.join, found)))
        return
    folder, options = Path(sys.argv[2]), sys.argv[3:]
    runs = {folder / folder_of(cell): [*cell, *options] for cell in found}
    for run, row in zip(runs, scores(runs), strict=True):
        print(f"{run.name:40s} {'   '.join(f'{said} {value:.2f}' for said, value in row.items())}")


if __name__ == "__main__":
    main()
