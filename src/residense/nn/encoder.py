"""Encoder = stages joined by transitions; stage = blocks wired by one connection; branch = what surrounds a block.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Literal

import torch
from torch import Tensor, nn

from residense.nn.blocks import Block, Conv
from residense.nn.connections import Connection, Residual

BlockFactory = Callable[[int, int], Block]
ConnectionFactory = Callable[[int, int, int], Connection]


class Branch(nn.Module):
    """What surrounds a block under any connection   y = drop_path(scale * dropout(norm_out(f(norm_in(x))))).

    Args:
        block: the block, `[B, L, in_dim] -> [B, L, out_dim]`.
        norm: `pre` normalises what the block reads, `peri` also what it writes (arXiv 2502.02732), `none` neither.
        scale: initial value of a learned scale per channel (LayerScale, arXiv 2103.17239); null for no scale.
        dropout: probability that a feature of the block's output is set to zero.
        drop_path: probability that a sentence skips the block altogether (arXiv 1603.09382).
    """

    def __init__(
        self,
        block: Block,
        norm: Literal["pre", "peri", "none"] = "pre",
        scale: float | None = None,
        dropout: float = 0.1,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.block = block
        self.norm_in = nn.Identity() if norm == "none" else nn.LayerNorm(block.in_dim)
        self.norm_out = nn.LayerNorm(block.out_dim) if norm == "peri" else nn.Identity()
        self.scale = None if scale is None else nn.Parameter(torch.full((block.out_dim,), scale))
        self.dropout, self.drop_path = nn.Dropout(dropout), drop_path

    def forward(self, *streams: Tensor, mask: Tensor) -> Tensor:
        y = self.norm_out(self.block(*(self.norm_in(x) for x in streams), mask=mask))
        y = self.dropout(y if self.scale is None else self.scale * y)
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            y = y * (torch.rand(len(y), 1, 1, device=y.device) < keep) / keep
        return y


class Transition(nn.Module):
    """Joins two stages: norm, relu, and a linear map that keeps a share of the width   (DenseNet-BC, arXiv 1608.06993).

    Args:
        in_dim: width of what leaves the stage before.
        compression: share of the width that is kept.
    """

    def __init__(self, in_dim: int, compression: float = 0.5):
        super().__init__()
        self.out_dim = max(1, int(in_dim * compression))
        self.squeeze = nn.Sequential(nn.LayerNorm(in_dim), nn.ReLU(), nn.Linear(in_dim, self.out_dim))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.squeeze(x), mask


class Stage(nn.Module):
    """Blocks wired by one connection. The loop knows neither.

    Args:
        in_dim: width of what enters.
        dim: width of the stage.
        blocks: one factory `(in_dim, out_dim) -> Block` for each block.
        connection: factory `(in_dim, dim, depth) -> Connection`.
        branch: factory `block -> Branch`.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        blocks: Sequence[BlockFactory],
        connection: ConnectionFactory,
        branch: Callable[[Block], Branch],
    ):
        super().__init__()
        self.connection = connection(in_dim, dim, len(blocks))
        self.branches = nn.ModuleList(branch(block(*self.connection.widths(i))) for i, block in enumerate(blocks))
        self.out_dim = self.connection.out_dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        state = self.connection.begin(x)
        for i, branch in enumerate(self.branches):
            streams, state = self.connection.read(state, i)
            state = self.connection.write(state, branch(*streams, mask=mask), i)
        return self.connection.end(state)


class Encoder(nn.Module):
    """Stages of blocks, joined by transitions.

    Args:
        in_dim: width of the embeddings.
        block: what computes; a list is cycled (attention, feed-forward, attention, ...).
        connection: what wires the blocks of a stage.
        depth: blocks in all, or a list with the number of blocks of each stage.
        dim: width of the stages.
        branch: norm, scale and drop path around each block.
        transition: what joins two stages.
        final_norm: normalise the output; needed where the last norm sits inside the branches.
    """

    def __init__(
        self,
        in_dim: int,
        block: list[BlockFactory] | BlockFactory = Conv,  # in this order: jsonargparse writes what fits first
        connection: ConnectionFactory = Residual,
        depth: int | list[int] = 4,
        dim: int = 128,
        branch: Callable[[Block], Branch] = Branch,
        transition: Callable[[int], Transition] = Transition,
        final_norm: bool = True,
    ):
        super().__init__()
        depths = [depth] if isinstance(depth, int) else depth
        if not depths or min(depths) < 1 or dim < 1:
            raise ValueError(f"depth and dim must be at least 1; got depth {depth}, dim {dim}")
        blocks = cycle(block if isinstance(block, list) else [block])
        self.stages, self.transitions = nn.ModuleList(), nn.ModuleList()
        width = in_dim
        for i, num_blocks in enumerate(depths):
            if i:
                joint = transition(width)
                self.transitions.append(joint)
                width = joint.out_dim
            stage = Stage(width, dim, list(islice(blocks, num_blocks)), connection, branch)
            self.stages.append(stage)
            width = stage.out_dim
        self.norm = nn.LayerNorm(width) if final_norm else nn.Identity()
        self.out_dim = width

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode `x` [B, L, in_dim] to [B, L, out_dim]; the mask comes back, as a transition may pool the length."""
        for i, stage in enumerate(self.stages):
            if i:
                x, mask = self.transitions[i - 1](x, mask)
            x = stage(x, mask)
        return self.norm(x), mask
