"""Training throughput of one process, of two with DDP, and of two independent processes.

    python scripts/experiments/scaling.py --pairs 5 --batch_tokens 512 4096

Independent processes are the upper bound on two cores: they share memory and clock but do not
communicate. The three variants take turns for `--pairs` rounds, with one thread per process.
Further options are passed to `main.py fit`.

Rates are `train/tokens_per_s` in metrics.csv: tokens of the global batch per second between the
start and the end of each batch. The first epoch (warmup) and the last one (in which one of two
processes may be alone) are excluded. The rates of two runs are added.

All-reduce: time between the start of the first all-reduce of a bucket and the end of the last one,
as a fraction of the step, including waiting for the other process. It comes from the timers of DDP,
sampled in every step of the first process. Exposed: the part after the last gradient was computed,
which is not hidden behind the backward pass. Slowdown of the backward pass itself shows only in
DDP / two.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L

MAIN = Path(__file__).parents[2] / "main.py"
COLUMNS = ("one", "DDP", "two", "DDP / one", "DDP / two", "all-reduce", "exposed")


class AllReduce(L.Callback):
    """Sum the seconds that the first process spends in the all-reduce."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.ddp: Any = trainer.strategy.model
        self.ddp._set_ddp_runtime_logging_sample_rate(1)
        self.seconds = dict.fromkeys(("step", "all-reduce", "exposed"), 0.0)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.current_epoch:
            timers = (
                self.ddp._get_ddp_logging_data()
            )  # of a step before; read here, where nobody counts the seconds
            reduced, hidden = (
                timers["backward_comm_time"],
                timers["backward_compute_comm_overlap_time"],
            )
            self.seconds["all-reduce"] += reduced / 1e9
            self.seconds["exposed"] += (reduced - hidden) / 1e9
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.current_epoch:
            self.seconds["step"] += time.perf_counter() - self.begin

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            (Path(trainer.default_root_dir) / "allreduce.json").write_text(json.dumps(self.seconds))


def start(run: Path, device: int, options: list[str]) -> subprocess.Popen[str]:
    """Start a training in its own process, on the given GPU if any."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    if "--trainer.devices=1" in options:
        environment["CUDA_VISIBLE_DEVICES"] = str(device)
    command = [sys.executable, str(MAIN), "fit", f"--run_dir={run}", *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def train(runs: int, options: list[str]) -> tuple[float, dict[str, float]]:
    """Return tokens per second of several simultaneous runs, and seconds in the all-reduce."""
    with tempfile.TemporaryDirectory() as folder:
        directories = [Path(folder) / str(number) for number in range(runs)]
        processes = [start(run, number, options) for number, run in enumerate(directories)]
        errors = [process.communicate()[1] for process in processes]
        if any(process.returncode for process in processes):
            sys.exit("".join(errors))
        seconds = directories[0] / "allreduce.json"
        return sum(map(rate, directories)), json.loads(
            seconds.read_text()
        ) if seconds.exists() else {}


def rate(run: Path) -> float:
    """Return tokens per second over all epochs but the first and the last."""
    with (run / "metrics.csv").open(newline="") as stream:
        rates = [
            float(row["train/tokens_per_s"])
            for row in csv.DictReader(stream)
            if row["train/tokens_per_s"]
        ]
    return statistics.harmonic_mean(rates[1:-1])


def compare(options: list[str]) -> dict[str, float]:
    """Run one round."""
    one, _ = train(1, [*options, "--trainer.devices=1"])
    shared = [
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.callbacks=scaling.AllReduce",
    ]
    ddp, seconds = train(1, [*options, *shared])
    two, _ = train(2, [*options, "--trainer.devices=1"])
    shares = {name: seconds[name] / seconds["step"] for name in ("all-reduce", "exposed")}
    return {
        "one": one,
        "DDP": ddp,
        "two": two,
        "DDP / one": ddp / one,
        "DDP / two": ddp / two,
    } | shares


def row(name: str, values: dict[str, float]) -> str:
    cells = [f"{values[c]:,.0f}" if c in COLUMNS[:3] else f"{values[c]:.2f}" for c in COLUMNS[:5]]
    return "| " + " | ".join([name, *cells, *(f"{values[c]:.1%}" for c in COLUMNS[5:])]) + " |"


def main() -> None:
    """Measure and print a table for each batch size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument(
        "--epochs", type=int, default=5, help="epochs per run; the first and last are excluded"
    )
    parser.add_argument(
        "--batch_tokens", type=int, nargs="+", default=[512, 4096], help="size of the global batch"
    )
    parser.add_argument("--devices", default="cpu", help="cpu or gpu")
    own, others = parser.parse_known_args()
    if own.epochs < 3:
        parser.error("--epochs must be at least 3")
    fixed = [
        "--config=dense_ner.yaml",
        "--logger=csv",
        "--test_after_fit=false",
        "--trainer.limit_val_batches=1",
    ]
    fixed += [f"--trainer.max_epochs={own.epochs}", f"--trainer.accelerator={own.devices}"]
    fixed += ["--trainer.enable_checkpointing=false", *others]
    for size in own.batch_tokens:
        print(
            f"\nTokens per second, {size:,} tokens in a global batch:\n\n| round | {' | '.join(COLUMNS)} |"
        )
        print("|---" + "|--:" * len(COLUMNS) + "|", flush=True)
        rounds = []
        for number in range(own.pairs):
            rounds.append(compare([*fixed, f"--data.batch_tokens={size}"]))
            print(row(str(number + 1), rounds[-1]), flush=True)
        print(
            row("median", {c: statistics.median(r[c] for r in rounds) for c in COLUMNS}), flush=True
        )


if __name__ == "__main__":
    main()
