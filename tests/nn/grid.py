"""The grid: all kinds of connections and blocks, and encoders made of them."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch

from residense.nn.blocks import GRU, LSTM, Attention, BlockFactory, Conv, FeedForward, Sequential
from residense.nn.branch import Branch
from residense.nn.connections import (
    AttentionResiduals,
    DeepNorm,
    Dense,
    DepthWeighted,
    DualPath,
    GatedResidual,
    Highway,
    HyperConnections,
    ManifoldConstrainedHyperConnections,
    MultiwayDynamicDense,
    Plain,
    PostNorm,
    ProjectedResidual,
    Residual,
    ScalarMix,
    UNetSkips,
)
from residense.nn.encoder import Encoder
from residense.nn.norms import RMSNorm

from .helpers import DIM, IN

linear_conv = partial(Conv, activation="none")
BLOCKS: dict[str, BlockFactory | list[BlockFactory]] = {
    "conv": Conv,
    "lstm": LSTM,
    "transformer": [partial(Attention, heads=2), FeedForward],
    "gru": partial(GRU, bidirectional=False),
    "separable": partial(Conv, kernel=5, separable=True, activation="glu"),
    "causal conv": partial(Conv, kernel=2, causal=True),
    "relative": [
        partial(Attention, heads=2, positions="relative"),
        partial(FeedForward, activation="swiglu"),
    ],
    "decoder": [partial(Attention, heads=2, causal=True), FeedForward],
    "windowed": [partial(Attention, heads=2, positions="relative", window=2), FeedForward],
    "sequential": partial(
        Sequential, blocks=[Conv, partial(Conv, dilation=2, order="before")], norm=RMSNorm
    ),
    "resnet": partial(Sequential, blocks=[linear_conv, linear_conv], activation="relu"),
}
# options of encoders: the connection, and what goes with it
CONNECTIONS: dict[str, dict[str, Any]] = {
    "plain": {"connection": Plain},
    "plain on embeddings": {"connection": Plain, "stem": "none"},
    "residual": {"connection": Residual},
    "residual behind a conv stem": {"connection": Residual, "stem": Conv},
    "projected": {"connection": ProjectedResidual, "stem": "none"},
    "gelu": {"connection": partial(ProjectedResidual, activation="gelu")},
    "post": {"connection": PostNorm},
    "deepnorm": {"connection": DeepNorm},
    "highway": {"connection": Highway},
    "gated": {"connection": GatedResidual},
    "unet": {"connection": UNetSkips},
    "dense": {"connection": partial(Dense, growth_rate=8, bottleneck=2)},
    "bare dense": {"connection": partial(Dense, growth_rate=8, bottleneck=0)},
    "dense on embeddings": {"connection": partial(Dense, growth_rate=8), "stem": "none"},
    "dual path": {"connection": partial(DualPath, growth_rate=8)},
    "scalar mix": {"connection": ScalarMix},
    "depth-weighted": {"connection": DepthWeighted},
    "dilated": {"connection": partial(DepthWeighted, dilation=2, period=3)},
    "attention residuals": {"connection": AttentionResiduals},
    "attention over sums": {"connection": partial(AttentionResiduals, block_size=3)},
    "multiway": {"connection": MultiwayDynamicDense},
    "hyper": {"connection": HyperConnections},
    "static hyper": {"connection": partial(HyperConnections, streams=2, dynamic=False)},
    "permutations": {"connection": partial(ManifoldConstrainedHyperConnections, streams=3)},
    "sinkhorn": {
        "connection": partial(
            ManifoldConstrainedHyperConnections, streams=2, mixing="sinkhorn", iterations=3
        )
    },
    "strided plain": {"connection": Plain, "stem": "none", "stride": 2},
    "strided projected": {"connection": ProjectedResidual, "stem": "none", "stride": 2},
    "strided at one width": {"connection": ProjectedResidual, "stride": 2},
    "scaled norm": {"connection": Residual, "branch": partial(Branch, norm="scaled", dropout=0.0)},
}
WITHOUT_DEEPNORM = ("lstm", "gru")
# others cannot shorten a sequence, and a causal block with a stride may leave out the last token
WITH_STRIDE = ("conv", "separable", "sequential", "resnet")


def fit(block: str, connection: str) -> bool:
    """Whether a block works under a connection."""
    if connection == "deepnorm":
        return block not in WITHOUT_DEEPNORM
    return "stride" not in CONNECTIONS[connection] or block in WITH_STRIDE


def two_blocks(block: str) -> int:
    """The depth of two blocks."""
    return 1 if isinstance(BLOCKS[block], list) else 2


def make(
    block: str, connection: str, depth: int | list[int] = 2, seed: int = 0, **options: Any
) -> Encoder:
    """An encoder of one cell of the grid, without dropout unless the options have some."""
    torch.manual_seed(seed)
    options = {"branch": partial(Branch, dropout=0.0)} | CONNECTIONS[connection] | options
    return Encoder(IN, BLOCKS[block], depth=depth, dim=DIM, **options)


Choice = Callable[[str, str], bool]  # of cells, by block and connection


def of_blocks(*blocks: str) -> Choice:
    """Choose all cells of some blocks."""
    return lambda block, connection: block in blocks


def traceable(block: str, connection: str) -> bool:
    """Choose cells that torch can trace: all connections with `Conv`, some with all blocks."""
    if block in ("lstm", "gru"):
        return False
    few = ("residual", "dense", "multiway", "hyper", "strided projected")
    return block == "conv" or connection in few


def cells(fast: Choice, among: Choice = lambda *_: True) -> pytest.MarkDecorator:
    """Parametrize a test by block and connection; all cells but the `fast` ones are slow tests."""
    pairs = [pair for pair in product(BLOCKS, CONNECTIONS) if fit(*pair) and among(*pair)]
    marked = [pytest.param(*pair, marks=[] if fast(*pair) else pytest.mark.slow) for pair in pairs]
    return pytest.mark.parametrize(("block", "connection"), marked)
