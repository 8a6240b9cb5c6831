"""Time `main.py --help` and a config error against the import that any LightningCLI needs.

    python scripts/experiments/startup.py 5

Each round runs the three commands; medians and their ratios to the import are printed.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

MAIN = str(Path(__file__).parents[2] / "main.py")
COMMANDS = {
    "import lightning.pytorch.cli": ["-c", "import lightning.pytorch.cli"],
    "main.py --help": [MAIN, "--help"],
    "config error": [
        MAIN,
        "fit",
        "--config",
        "dense_ner.yaml",
        "--model.encoder.conection",
        "Dense",
    ],
}


def main() -> None:
    """Time the commands in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    bare = medians["import lightning.pytorch.cli"]
    for name, median in medians.items():
        print(f"{name:30s} {median:6.2f} s   {median / bare:.2f}")


if __name__ == "__main__":
    main()
