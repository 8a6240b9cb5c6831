"""Train encoders of increasing depth with several connections and record their training loss.

    python scripts/experiments/depth_sweep.py docs/depth.csv [--wnut17 path/to/wnut17]
        [--block conv] [--threads 1]

All cells (corpus, block, connection, depth, seed) use width 64, 300 steps of 512 tokens, AdamW and
no dropout. The loss is the mean over the last 50 steps. Cells that are in the file are skipped, so
an interrupted sweep can be resumed. `scripts/experiments/depth_report.py` makes tables and a figure.
"""

import argparse
import csv
import logging
import time
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from residense import (
    Attention,
    AttentionResiduals,
    Branch,
    Conv,
    Dense,
    DepthWeighted,
    DualPath,
    Embeddings,
    Encoder,
    FeedForward,
    Highway,
    HyperConnections,
    ManifoldConstrainedHyperConnections,
    MultiwayDynamicDense,
    Plain,
    Residual,
    Softmax,
    Synthetic,
    Tagger,
    TaggingDataModule,
    UNetSkips,
    Warmup,
)

STEPS, WIDTH, LAST, SEEDS = 300, 64, 50, (0, 1, 2)
BLOCKS: dict[str, Any] = {"conv": [Conv], "transformer": [Attention, FeedForward]}
SWEPT: dict[str, Any] = {
    kind.__name__: kind for kind in (Plain, Residual, Dense, DepthWeighted, HyperConnections)
}
OTHERS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Highway,
        UNetSkips,
        DualPath,
        AttentionResiduals,
        MultiwayDynamicDense,
        ManifoldConstrainedHyperConnections,
    )
}


class Cell(NamedTuple):
    """A model to train.

    Attributes:
        rows: Whether connections are compared at the same width or with equal parameters.
        corpus: `embedded`, the synthetic corpus, or `wnut17`.
        block: Kind of the blocks.
        connection: Class of the connection.
        depth: Number of blocks; a Transformer layer has two.
        seed: Seed of weights and batches.
    """

    rows: str
    corpus: str
    block: str
    connection: str
    depth: int
    seed: int


def cells() -> Iterator[Cell]:
    """Yield all cells, cheap ones first."""
    for depth, seed in product((2, 4, 8, 16, 32, 64), SEEDS):
        for connection in SWEPT:
            yield Cell("width 64", "embedded", "conv", connection, depth, seed)
            if depth in (4, 16, 64):
                yield Cell("width 64", "embedded", "transformer", connection, depth, seed)
                yield Cell("width 64", "wnut17", "conv", connection, depth, seed)
                yield Cell("width 64", "wnut17", "transformer", connection, depth, seed)
                yield Cell("equal parameters", "embedded", "conv", connection, depth, seed)
        if depth == 16:
            for connection, block in product(OTHERS, BLOCKS):
                yield Cell("width 64", "embedded", block, connection, depth, seed)


class Losses(L.Callback):
    """Record the training loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(outputs["loss"].item())


def encoder(cell: Cell, in_dim: int, width: int = WIDTH, connection: str = "") -> Encoder:
    """Return the encoder of a cell, optionally with another width or connection."""
    wiring = (SWEPT | OTHERS)[connection or cell.connection]
    if wiring is Dense:
        wiring = partial(Dense, growth_rate=width // 4, bottleneck=4)  # blocks read the width
    layer = BLOCKS[cell.block]
    num_layers = cell.depth // len(layer)
    return Encoder(in_dim, layer, wiring, num_layers, width, partial(Branch, dropout=0.0))


def equal_width(cell: Cell, in_dim: int) -> int:
    """Return the width at which a connection has about as many parameters as `Residual`."""
    wanted = count(encoder(cell, in_dim, connection="Residual"))
    return min(
        range(8, 257, 4), key=lambda width: abs(count(encoder(cell, in_dim, width)) - wanted)
    )


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def train(cell: Cell, wnut17: str | None) -> dict[str, Any]:
    """Train a cell and return its results."""
    L.seed_everything(cell.seed, verbose=False)
    data = (
        TaggingDataModule(path=wnut17, batch_tokens=512) if cell.corpus == "wnut17" else embedded()
    )
    embeddings = partial(Embeddings, characters=None)
    made: list[Encoder] = []

    def make(in_dim: int) -> Encoder:
        width = equal_width(cell, in_dim) if cell.rows == "equal parameters" else WIDTH
        L.seed_everything(cell.seed, verbose=False)
        made.append(encoder(cell, in_dim, width))
        return made[0]

    optimizer = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.01, fused=True)
    task = Tagger(data.vocabulary, embeddings, make, Softmax, optimizer=optimizer, schedule=Warmup)
    losses, begin = Losses(), time.perf_counter()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[losses],
    )
    trainer.fit(task, datamodule=data)
    seconds = time.perf_counter() - begin
    loss = torch.tensor(losses.values[-LAST:]).mean().item()
    return {"loss": f"{loss:.5f}", "parameters": count(made[0]), "seconds": f"{seconds:.1f}"}


def embedded() -> TaggingDataModule:
    return TaggingDataModule(synthetic=Synthetic(), batch_tokens=512)


def main() -> None:
    """Parse the command line and train the missing cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--wnut17")
    parser.add_argument("--block", choices=BLOCKS, help="train only cells of this block")
    parser.add_argument("--rows", help="train only these rows, such as 'width 64'")
    parser.add_argument("--depths", type=int, nargs="+", help="train only these depths")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    done = set()
    if options.file.exists():
        with options.file.open(newline="") as file:
            done = {tuple(row[field] for field in Cell._fields) for row in csv.DictReader(file)}
    for cell in cells():
        left_out = (
            (cell.corpus == "wnut17" and not options.wnut17)
            or (options.block and cell.block != options.block)
            or (options.rows and cell.rows != options.rows)
            or (options.depths and cell.depth not in options.depths)
        )
        if left_out or tuple(map(str, cell)) in done:
            continue
        row = cell._asdict() | train(cell, options.wnut17)
        new = not options.file.exists()
        with options.file.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
