"""Draw the wiring of each connection from its connection map after a short training.

    python scripts/experiments/draw_connections.py docs/connections

Each figure shows six convolutions of width 64 after 300 steps on the synthetic corpus. On the left
is the stage, with an arc from each source to each block that reads it, whose strength is the
contribution of the source; on the right is the connection map.
"""

import logging
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Arc
from torch import Tensor

from residense import (
    AttentionResiduals,
    Branch,
    Conv,
    Dense,
    DepthWeighted,
    DualPath,
    Embeddings,
    Encoder,
    GatedResidual,
    Highway,
    HyperConnections,
    ManifoldConstrainedHyperConnections,
    MultiwayDynamicDense,
    Plain,
    PostNorm,
    Residual,
    ScalarMix,
    Softmax,
    Synthetic,
    Tagger,
    TaggingDataModule,
    UNetSkips,
)
from residense.nn.connection_map import connection_maps

DEPTH, WIDTH, STEPS = 6, 64, 300
CONNECTIONS: dict[str, Any] = {
    "Plain": Plain,
    "Residual": Residual,
    "Residual, post-norm": PostNorm,
    "GatedResidual": GatedResidual,
    "ScalarMix": ScalarMix,
    "Highway": Highway,
    "UNetSkips": UNetSkips,
    "Dense": partial(Dense, growth_rate=16),
    "DualPath": DualPath,
    "DepthWeighted": DepthWeighted,
    "MultiwayDynamicDense": MultiwayDynamicDense,
    "AttentionResiduals": AttentionResiduals,
    "HyperConnections": HyperConnections,
    "ManifoldConstrainedHyperConnections": ManifoldConstrainedHyperConnections,
}


def trained_map(connection: Any) -> Tensor:
    """Return the map [depth + 1, depth + 1] of a stage over a validation batch."""
    L.seed_everything(0, verbose=False)
    data = TaggingDataModule(synthetic=Synthetic())
    make = partial(
        Encoder,
        block=Conv,
        connection=connection,
        depth=DEPTH,
        dim=WIDTH,
        branch=partial(Branch, dropout=0.0),
    )
    optimizer = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.01, fused=True)
    embeddings = partial(Embeddings, characters=None)
    task = Tagger(data.vocabulary, embeddings, make, Softmax, optimizer=optimizer)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        x = task.eval().embeddings(batch["words"], batch["char_ids"], batch["char_rows"])
    return connection_maps(task.encoder, x, batch["mask"])[0]


def draw(map_: Tensor, title: str, path: Path) -> None:
    """Draw a map as a wiring and as a matrix."""
    shares = map_.abs() / map_.abs().sum(1, keepdim=True)
    names = ["x", *[f"f{i + 1}" for i in range(len(map_) - 1)]]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.4), layout="constrained", gridspec_kw={"width_ratios": [2, 1]}
    )
    figure.suptitle(title, fontsize=11)
    _wiring(left, shares, [*names, "out"])
    _table(right, map_, shares, names)
    figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)


def _wiring(axis: Axes, shares: Tensor, names: list[str]) -> None:
    for reader, row in enumerate(
        shares.tolist(), start=1
    ):  # row i is what block i + 1 reads; the last, what comes out
        for source, share in enumerate(row[:reader]):
            span, look = (
                reader - source,
                {"linewidth": 5 * share**0.5, "alpha": min(1.0, 0.9 * share**0.4)},
            )
            if span == 1:
                axis.plot([source, reader], [0, 0], color="tab:blue", **look)
            else:
                centre = (source + reader) / 2
                side = (0, 180) if reader % 2 else (180, 360)  # readers in turn above and below
                height = 0.75 * span
                axis.add_patch(
                    Arc(
                        (centre, 0),
                        span,
                        height,
                        theta1=side[0],
                        theta2=side[1],
                        color="tab:blue",
                        **look,
                    )
                )
    for place, name in enumerate(names):
        axis.text(
            place,
            0,
            name,
            ha="center",
            va="center",
            bbox={"boxstyle": "round", "fc": "white", "ec": "black"},
        )
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_ylim(-0.42 * len(names), 0.42 * len(names))
    axis.set_axis_off()


def _table(axis: Axes, map_: Tensor, shares: Tensor, names: list[str]) -> None:
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(map_.tolist()):
        for s, value in enumerate(row[: i + 1]):
            color = "white" if shares[i, s] > 0.6 else "black"
            axis.text(s, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_yticks(range(len(names)), [*names[1:], "out"], fontsize=8)
    axis.set_xlabel("source", fontsize=8)
    axis.set_ylabel("reader", fontsize=8)


def main() -> None:
    """Train and draw each connection."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name, connection in CONNECTIONS.items():
        path = folder / (name.lower().replace(", ", "-") + ".png")
        draw(trained_map(connection), name, path)
        print(path, flush=True)


if __name__ == "__main__":
    main()
