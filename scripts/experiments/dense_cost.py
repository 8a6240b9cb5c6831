"""Memory and time of a training step of `Dense`, against `Residual` and against `torch.cat`.

    python scripts/experiments/dense_cost.py > docs/dense_cost.md

Convolutions on 1024 tokens (16 sentences of 64), growth rate 32, bottleneck 4: every block reads 128
features, and writes 32 under `Dense` and 128 under `Residual`. `torch.cat` is the usual
implementation, in which each block concatenates, normalizes, rectifies and maps all earlier outputs.
"Recomputed" is `Dense` with `activation_checkpointing: true`.

Saved: bytes of the tensors that autograd stores for the backward pass, each storage once, without
parameters and without the block outputs from which recomputation starts. Peak: resident memory above
that before the step, each in a new process. Time: median over interleaved steps, one thread.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from residense import Branch, Connection, Conv, Dense, Encoder, Layout, Residual
from residense.nn.connections.base import State

WIDTH, GROWTH, BOTTLENECK, SHAPE, STEPS = 128, 32, 4, (16, 64), 15
DEPTHS = (4, 8, 16, 32, 64)


class Concatenated(Connection):
    """The usual dense connection: norm, ReLU and a linear map of the concatenation for each block."""

    def __init__(self, layout: Layout):
        super().__init__(layout)
        self.out_dim = self.in_dim + self.depth * GROWTH
        self.squeeze = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, BOTTLENECK * GROWTH))
            for width in range(self.in_dim, self.out_dim, GROWTH)
        )

    def widths(self, i: int) -> tuple[int, int]:
        return BOTTLENECK * GROWTH, GROWTH

    def begin(self, x: Tensor, mask: Tensor) -> State:
        return (x,)

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        return (self.squeeze[i](torch.cat(state, -1)),), state

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> State:
        return (*state, y)

    def end(self, state: State) -> Tensor:
        return torch.cat(state, -1)


DENSE = partial(Dense, growth_rate=GROWTH, bottleneck=BOTTLENECK)
VARIANTS: dict[str, Callable[[int], Encoder]] = {
    "Residual": lambda depth: encoder(Residual, depth),
    "torch.cat": lambda depth: encoder(Concatenated, depth),
    "Dense": lambda depth: encoder(DENSE, depth),
    "recomputed": lambda depth: encoder(DENSE, depth, activation_checkpointing=True),
}


def encoder(connection: Any, depth: int, **options: Any) -> Encoder:
    return Encoder(WIDTH, Conv, connection, depth, WIDTH, partial(Branch, dropout=0.0), **options)


def step(model: Encoder) -> None:
    """Run a forward and a backward pass."""
    x = torch.randn(*SHAPE, WIDTH)
    model(x, torch.ones(SHAPE, dtype=torch.bool))[0].square().mean().backward()
    model.zero_grad()


def saved_bytes(model: Encoder) -> int:
    """Return the number of bytes stored for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = (
            model(torch.randn(*SHAPE, WIDTH), torch.ones(SHAPE, dtype=torch.bool))[0]
            .square()
            .mean()
        )
    total = sum(kept.values())
    del loss
    return total


def memory(kind: str) -> int:
    """Return `VmRSS`, the current resident bytes, or `VmHWM`, their peak."""
    found = re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def measure(variant: str, depth: int) -> dict[str, float]:
    """Return the saved and resident MiB of one step; run it in a new process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step(VARIANTS[variant](2))  # what torch itself allocates at first use
    model = VARIANTS[variant](depth)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
    step(model)
    peak = memory("VmHWM") - before
    return {"saved": saved_bytes(model) / 2**20, "peak": peak / 2**20}


def times(depth: int) -> dict[str, float]:
    """Return the median milliseconds of a step of each variant, interleaved."""
    torch.set_num_threads(1)
    models = {name: make(depth) for name, make in VARIANTS.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(STEPS + 2):
        for name, model in models.items():
            begin = time.perf_counter()
            step(model)
            found[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(values[2:]) for name, values in found.items()}


def main() -> None:
    """Measure each variant in its own process and print a table."""
    if len(sys.argv) > 1:
        depth = int(sys.argv[2])
        print(json.dumps(times(depth) if sys.argv[1] == "times" else measure(sys.argv[1], depth)))
        return
    print(
        (__doc__ or "").replace("    python", "```bash\npython").replace(".md\n", ".md\n```\n", 1)
    )
    print(
        "| depth | " + " | ".join(f"{name}: saved MiB | peak MiB | ms" for name in VARIANTS) + " |"
    )
    print("|---" * (1 + 3 * len(VARIANTS)) + "|")
    shares = []
    for depth in DEPTHS:
        cells = [str(depth)]
        clock = call("times", depth)
        rows = {name: call(name, depth) for name in VARIANTS}
        dense, naive = (rows[name] | {"time": clock[name]} for name in ("Dense", "torch.cat"))
        share = ", ".join(
            f"{kind} {dense[kind] / naive[kind]:.2f}" for kind in ("peak", "saved", "time")
        )
        shares.append(f"depth {depth}: {share}")
        for name, row in rows.items():
            cells += [f"{row['saved']:.1f}", f"{row['peak']:.1f}", f"{clock[name]:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    print("\n`Dense` relative to `torch.cat`, with the same blocks: " + "; ".join(shares) + ".")


def call(what: str, depth: int) -> dict[str, float]:
    command = [sys.executable, __file__, what, str(depth)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    )


if __name__ == "__main__":
    main()
