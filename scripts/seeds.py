"""Train with several seeds and report mean and standard deviation of the test scores.

    python scripts/seeds.py 3 runs/wnut17 --config dense_ner.yaml --data.path path/to/wnut17

The number of seeds, a folder for the runs, then the options of `main.py fit`. Finished runs are not repeated, so an
interrupted call goes on where it stopped.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

MAIN = Path(__file__).parents[1] / "main.py"


def score(run: Path, options: list[str]) -> dict[str, float]:
    """Test scores of the run in a folder, trained first if need be."""
    if not (run / "test.json").exists():
        command = [sys.executable, str(MAIN), "fit", f"--run_dir={run}", *options, "--ckpt_path=last"]
        subprocess.run(command, check=True)
    results = json.loads((run / "test.json").read_text())
    unseen = results.get("compared", {}).get("unseen in training", {})
    names = {"f1": "F1", "accuracy": "accuracy", "macro_f1": "macro F1", "class_accuracy": "intents"}
    found = {said: 100 * results[name] for name, said in names.items() if name in results}
    return found | ({"F1 unseen": 100 * unseen["f1"]} if "f1" in unseen else {})


def main() -> None:
    """Read the command line, train, print a line for each score."""
    if len(sys.argv) < 4 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    folder, options = Path(sys.argv[2]), sys.argv[3:]
    seeds = range(int(sys.argv[1]))
    rows = [score(folder / f"seed-{seed}", [f"--seed_everything={seed}", *options]) for seed in seeds]
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:10s} {statistics.mean(values):6.2f} +- {spread:.2f}   {', '.join(f'{v:.2f}' for v in values)}")


if __name__ == "__main__":
    main()
