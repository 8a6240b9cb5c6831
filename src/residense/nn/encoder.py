"""Encoder = stages joined by transitions; stage = blocks wired by one connection; branch = what surrounds a block.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import cycle, islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from residense.bounds import Positive, Share
from residense.nn.blocks import Block, BlockFactory, Conv
from residense.nn.connections import Connection, Residual
from residense.nn.connections.base import State
from residense.nn.norms import BatchNorm, LayerNorm, Norm, NormFactory
from residense.nn.transition import Transition, TransitionFactory

ConnectionFactory = Callable[[int, int, int], Connection]


class Branch(nn.Module):
    """What surrounds a block under any connection   y = drop_path(scale * dropout(norm_out(f(norm_in(x))))).

    `drop_path` and `rezero` make a block write zeros, which needs a connection that carries the input past the block.
    Under `Plain` nothing does, so both are off there, with a warning: the control has the same blocks and no shortcut,
    not even a random one. Different from the papers: `drop_path` draws for each sentence instead of each batch, and
    scales what is kept in training; `layer_scale` starts at 0.1 at any depth, where the paper has less in deep stacks.

    Args:
        block: the block, `[B, L, in_dim] -> [B, L, out_dim]`.
        index: place of the block in the encoder, from 0.
        depth: number of blocks in the encoder.
        bypass: whether the connection carries anything past the block.
        norm: `pre` normalises what the block reads, `peri` also what it writes (arXiv 2502.02732), `none` neither.
        norm_type: norm at these places.
        scale: `layer_scale` learns a factor for each channel (arXiv 2103.17239), `rezero` one for all that starts at 0
            (arXiv 2003.04887; made for `norm: none`), `depth` is 1 / sqrt(depth), `none` is 1.
        scale_init: initial factor of `layer_scale`.
        dropout: probability that a feature of the block's output is set to zero.
        drop_path: probability that a sentence skips the last block altogether; it rises linearly up to there (arXiv
            1603.09382).
    """

    def __init__(
        self,
        block: Block,
        index: int = 0,
        depth: int = 1,
        bypass: bool = True,
        norm: Literal["pre", "peri", "none"] = "pre",
        norm_type: NormFactory = LayerNorm,
        scale: Literal["none", "layer_scale", "rezero", "depth"] = "none",
        scale_init: float = 0.1,
        dropout: Share = 0.1,
        drop_path: Share = 0.0,
    ):
        super().__init__()
        if not 0 <= drop_path < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"dropout and drop_path must be in [0, 1); got {dropout} and {drop_path}"
            )
        if not bypass and (drop_path or scale == "rezero"):
            warnings.warn(
                "branch: drop_path and scale rezero are off, as nothing passes by a block under this connection",
                stacklevel=1,
            )
            drop_path, scale = 0.0, "none" if scale == "rezero" else scale
        self.block = block
        self.norm_in = (Norm if norm == "none" else norm_type)(block.in_dim)
        self.norm_out = (norm_type if norm == "peri" else Norm)(block.out_dim)
        self.scale = self._scale(scale, scale_init, depth)
        self.dropout, self.drop_path = nn.Dropout(dropout), drop_path * (index + 1) / depth

    def _scale(self, kind: str, start: float, depth: int) -> nn.Parameter | float | None:
        if kind == "layer_scale":
            return nn.Parameter(torch.full((self.block.out_dim,), start))
        return {"none": None, "depth": depth**-0.5, "rezero": nn.Parameter(torch.zeros(1))}[kind]

    def forward(self, *streams: Tensor, mask: Tensor) -> Tensor:
        y = self.block(*(self.norm_in(x, mask) for x in streams), mask=mask)
        if y.shape[-1] != self.block.out_dim:
            kind = type(self.block).__name__
            raise ValueError(
                f"{kind} wrote vectors of width {y.shape[-1]} where out_dim is {self.block.out_dim}"
            )
        y = self.norm_out(y, mask)
        y = self.dropout(y if self.scale is None else self.scale * y)
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            y = y * (torch.rand(len(y), 1, 1, device=y.device) < keep) / keep
        return y


BranchFactory = Callable[[Block, int, int, bool], Branch]


class Stage(nn.Module):
    """Blocks wired by one connection. The loop knows neither.

    Args:
        in_dim: width of what enters.
        dim: width of the stage.
        blocks: one factory `(in_dim, out_dim) -> Block` for each block.
        connection: factory `(in_dim, dim, depth) -> Connection`.
        branch: factory `(block, index, bypass) -> Branch`.
        share: one block for all places with the same factory and the same widths.
        recompute: keep only what connections keep, and compute blocks anew for their gradients.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        blocks: Sequence[BlockFactory],
        connection: ConnectionFactory,
        branch: Callable[[Block, int, bool], Branch],
        share: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        self.connection = connection(in_dim, dim, len(blocks))
        if share:
            known = {block: cache(block) for block in blocks}
            blocks = [known[block] for block in blocks]
        made = [block(*self.connection.widths(i)) for i, block in enumerate(blocks)]
        self.connection.wire(made)
        self.branches = nn.ModuleList(
            branch(block, i, self.connection.bypass) for i, block in enumerate(made)
        )
        self.out_dim, self.recompute = self.connection.out_dim, recompute

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        step = (
            partial(checkpoint, self.step, use_reentrant=False)
            if self.recompute and self.training
            else self.step
        )
        state = self.connection.begin(x, mask)
        for i in range(len(self.branches)):
            state = step(state, mask, i)
        return self.connection.end(state)

    def step(self, state: State, mask: Tensor, i: int) -> State:
        """Block `i` between two states of the connection."""
        streams, state = self.connection.read(state, i)
        return self.connection.write(state, self.branches[i](*streams, mask=mask), i)


class Encoder(nn.Module):
    """Stages of blocks, joined by transitions.

    Args:
        in_dim: width of the embeddings.
        block: what computes; a list is cycled (attention, feed-forward, attention, ...).
        connection: what wires the blocks of a stage.
        depth: blocks in all, or a list with the number of blocks of each stage.
        dim: width of the stages, or a list with that of each.
        branch: norm, scale and drop path around each block.
        transition: what joins two stages.
        final_norm: norm of the output, needed where the last norm sits inside the branches: true for a layer norm,
            false for none, or any norm, such as the `norm_type` of the branches.
        share: in each stage, blocks from the same place of the list share their weights where widths agree (ID-CNN).
        recompute: compute blocks anew for their gradients: less memory, more time, the same gradients.

    Attributes:
        stride: tokens that became one in the output.
    """

    def __init__(
        self,
        in_dim: int,
        block: list[BlockFactory]
        | BlockFactory = Conv,  # in this order: jsonargparse writes what fits first
        connection: ConnectionFactory = Residual,
        depth: Positive | list[Positive] = 4,
        dim: Positive | list[Positive] = 128,
        branch: BranchFactory = Branch,
        transition: TransitionFactory = Transition,
        final_norm: bool | NormFactory = True,
        share: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        depths = [depth] if isinstance(depth, int) else depth
        dims = [dim] * len(depths) if isinstance(dim, int) else dim
        if not depths or min(*depths, *dims, 1) < 1 or len(dims) != len(depths):
            raise ValueError(
                f"depth and dim must be at least 1, one of each for a stage; got depth {depth}, dim {dim}"
            )
        kinds = block if isinstance(block, list) else [block]
        if not kinds:
            raise ValueError(
                "encoder.block is empty: name at least one block, such as block/lstm.yaml"
            )
        blocks = cycle(
            [partial(kind) for kind in kinds]
        )  # each place of the list is a factory of its own
        self.stages, self.transitions = nn.ModuleList(), nn.ModuleList()
        width, done, self.stride = in_dim, 0, 1
        for i, num_blocks in enumerate(depths):
            if i:
                joint = transition(width)
                self.transitions.append(joint)
                width, self.stride = joint.out_dim, self.stride * joint.stride
            here = partial(_place, branch, done, sum(depths))
            stage = Stage(
                width, dims[i], list(islice(blocks, num_blocks)), connection, here, share, recompute
            )
            self.stages.append(stage)
            width, done = stage.out_dim, done + num_blocks
        if isinstance(final_norm, bool):
            final_norm = LayerNorm if final_norm else Norm
        self.norm = final_norm(width)
        self.out_dim = width
        if share and len({id(b) for b in self._blocks()}) == sum(depths):
            raise ValueError(
                "share: no two blocks of the list read and write the same widths, or depth is too small"
            )
        if recompute and any(isinstance(module, BatchNorm) for module in self.modules()):
            raise ValueError(
                "recompute would count each batch twice in the statistics of BatchNorm: use another norm"
            )

    def _blocks(self) -> list[Block]:
        return [branch.block for stage in self.stages for branch in stage.branches]  # type: ignore[union-attr]

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode `x` [B, L, in_dim] to [B, L, out_dim]; the mask comes back, as a transition may pool the length."""
        for i, stage in enumerate(self.stages):
            if i:
                x, mask = self.transitions[i - 1](x, mask)
            x = stage(x, mask)
        return self.norm(x, mask), mask


def _place(
    branch: BranchFactory, before: int, depth: int, block: Block, i: int, bypass: bool
) -> Branch:
    return branch(block, before + i, depth, bypass)
