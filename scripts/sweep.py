"""A grid of configs/sweeps without W&B.

    python scripts/sweep.py configs/sweeps/wiring.yaml                 print the options of each cell, a line each
    python scripts/sweep.py configs/sweeps/wiring.yaml runs/wiring     train them all, print a table of the test scores

Options behind the folder are added to each cell. Finished runs are not repeated, and one that was interrupted goes on.
`scripts/submit.py --sweep FILE` makes a SLURM array of the same cells.
"""

import itertools
import re
import shlex
import sys
from pathlib import Path

import yaml
from seeds import score


def cells(path: Path) -> list[list[str]]:
    """The options of `main.py fit` for each combination of the values, the last parameter changing fastest.

    Raises:
        SystemExit: there is no grid in the file.
    """
    if not path.is_file():
        sys.exit(f"error: no sweep {path}; there are some in configs/sweeps/")
    sweep = yaml.safe_load(path.read_text())
    values = {name: [p["value"]] if "value" in p else p.get("values") for name, p in sweep["parameters"].items()}
    if sweep["method"] != "grid" or None in values.values():
        sys.exit(f"error: {path}: only `method: grid`, with `values` for each parameter, has cells; use `wandb sweep`")
    command = sweep["command"]
    fixed = command[command.index("fit") + 1 : command.index("${args}")]
    pairs = ([f"--{name}={value}" for value in values[name]] for name in values)
    return [[*fixed, *cell] for cell in itertools.product(*pairs)]


def folder_of(cell: list[str]) -> str:
    """The values of a cell as the name of a folder."""
    return "-".join(re.sub(r"[^\w.]+", "_", word.partition("=")[2]) for word in cell)


def main() -> None:
    """Print the cells, or train them."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    found = cells(Path(sys.argv[1]))
    if len(sys.argv) == 2:
        print("\n".join(map(shlex.join, found)))
        return
    folder, options = Path(sys.argv[2]), sys.argv[3:]
    rows = {folder_of(cell): score(folder / folder_of(cell), [*cell, *options]) for cell in found}
    for name, scores in rows.items():
        print(f"{name:40s} {'   '.join(f'{said} {value:.2f}' for said, value in scores.items())}")


if __name__ == "__main__":
    main()
