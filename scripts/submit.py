r"""Submit a training job to SLURM: runs `scripts/train.slurm` with the given resources.

    python scripts/submit.py --nodes 2 --gpus-per-node 4 --time 8:00:00 --config dense_ner.yaml
    python scripts/submit.py --array 0-9%4 --config dense_ner.yaml \
        --seed_everything '$SLURM_ARRAY_TASK_ID'
    python scripts/submit.py --sweep configs/sweeps/wiring.yaml --time 1:00:00

Options that are not listed below are passed to `main.py fit`. There is one task per GPU, or
`--tasks-per-node`.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep import cells

SCRIPT = Path(__file__).with_name("train.slurm")
SBATCH = (
    "time",
    "array",
    "dependency",
    "partition",
    "account",
    "qos",
    "mem",
    "job-name",
    "mail-user",
    "constraint",
)


def command(words: Sequence[str]) -> tuple[list[str], bool]:
    """Return the sbatch command, and whether to print it only."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=0)
    parser.add_argument(
        "--tasks-per-node", type=int, help="processes per node; by default one per GPU"
    )
    parser.add_argument("--cpus-per-task", type=int, default=4)
    parser.add_argument(
        "--grace",
        type=int,
        default=120,
        help="seconds before the time limit at which the run saves",
    )
    for name in SBATCH:
        parser.add_argument(f"--{name}", help="option of sbatch")
    parser.add_argument(
        "--sweep",
        type=Path,
        help="grid of configs/sweeps, submitted as an array with a task per cell",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the command and submit nothing"
    )
    options, rest = parser.parse_known_args(words)
    tasks = options.tasks_per_node or max(1, options.gpus_per_node)
    exported = ["ALL", f"RESIDENSE_GRACE={options.grace}"]
    if options.sweep:
        exported.append(f"SWEEP={options.sweep}")
        options.array = options.array or f"0-{len(cells(options.sweep)) - 1}"
    resources = [
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={tasks}",
        f"--cpus-per-task={options.cpus_per_task}",
    ]
    resources += [f"--gpus-per-node={options.gpus_per_node}"] * bool(options.gpus_per_node)
    resources += [f"--signal=SIGUSR1@{options.grace}", f"--export={','.join(exported)}"]
    given = {name: getattr(options, name.replace("-", "_")) for name in SBATCH}
    resources += [f"--{name}={value}" for name, value in given.items() if value is not None]
    return ["sbatch", *resources, str(SCRIPT), *rest], options.dry_run


def main() -> None:
    """Print or submit the job."""
    words, only_show = command(sys.argv[1:])
    print(shlex.join(words))
    if not only_show:
        sys.exit(subprocess.run(words, cwd=SCRIPT.parents[1]).returncode)


if __name__ == "__main__":
    main()
