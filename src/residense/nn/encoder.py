"""The encoder: stages of blocks, connected by transitions.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from math import prod
from typing import Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from residense.nn.blocks import Block, BlockFactory, Conv, Linear
from residense.nn.branch import Branch, BranchFactory, Place
from residense.nn.connections import ConnectionFactory, Layout, Residual
from residense.nn.connections.base import State
from residense.nn.norms import BatchNorm, LayerNorm, NoNorm, NormFactory
from residense.nn.transition import DenseTransition, Transition, TransitionFactory


class Stage(nn.Module):
    """Blocks wired by one connection.

    An input of a different width is projected unless the connection can read it.

    Args:
        in_dim: Width of the input.
        dim: Width of the stage.
        blocks: Factories of the blocks.
        places: Position of each block in the encoder.
        connection: Factory of the connection.
        branch: Factory of the branches.
        norm: Default norm of the encoder.
        stride: Stride of block 0.
        tie_weights: Whether blocks of the same factory and the same widths are one module.
        activation_checkpointing: Whether to recompute the blocks in the backward pass.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        blocks: Sequence[BlockFactory],
        places: Sequence[Place],
        connection: ConnectionFactory = Residual,
        branch: BranchFactory = Branch,
        norm: NormFactory = LayerNorm,
        stride: int = 1,
        tie_weights: bool = False,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        self.connection = connection(Layout(in_dim, dim, len(blocks), stride, norm))
        entry = self.connection.in_dim
        self.project = nn.Linear(in_dim, entry, bias=False) if in_dim != entry else nn.Identity()
        if tie_weights:
            tied = {block: cache(block) for block in blocks}
            blocks = [tied[block] for block in blocks]
        made = [
            _make(block, self.connection.widths(i), stride if i == 0 else 1)
            for i, block in enumerate(blocks)
        ]
        self.connection.prepare(made)
        skips = self.connection.skips
        self.branches = nn.ModuleList(
            branch(block, place._replace(skips=skips))
            for block, place in zip(made, places, strict=True)
        )
        self.stride = stride
        self.out_dim = self.connection.out_dim
        self.activation_checkpointing = activation_checkpointing

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` [B, L, in_dim] to [B, ceil(L / stride), out_dim], and its mask accordingly."""
        step = self._step
        if self.activation_checkpointing and self.training:
            step = partial(checkpoint, self._step, use_reentrant=False)
        out_mask = mask[:, :: self.stride]
        state = self.connection.begin(self.project(x), mask)
        for i in range(len(self.branches)):
            state = step(state, i, mask, out_mask)
            mask = out_mask  # only block 0 can shorten the sequence
        return self.connection.end(state), out_mask

    def _step(self, state: State, i: int, mask: Tensor, out_mask: Tensor) -> State:
        streams, state = self.connection.read(state, i, mask)
        y = self.branches[i](*streams, mask=mask, out_mask=out_mask)
        return self.connection.write(state, y, i, out_mask)


class Encoder(nn.Module):
    """Stages of blocks, connected by transitions.

    Args:
        in_dim: Width of the embeddings.
        block: Block, or list of blocks that make up one layer, such as attention and feed-forward.
        connection: Connection between the blocks of a stage.
        depth: Number of layers, or a list with the number for each stage. A layer may have several
            blocks; connections act between blocks.
        dim: Width of the stages, or a list with the width of each stage.
        branch: Norm, dropout, scale and drop path around each block.
        transition: Transition between two stages.
        norm: Default norm of all parts.
        final_norm: Norm of the output; true for `norm`, false for none. Needed if norms are inside
            the branches.
        stem: Layer that maps the embeddings to `dim`: `linear` for a linear map if the widths
            differ; a block, such as a convolution; or `none`, so that connections that can read
            other widths (`Plain`, `ProjectedResidual`, `Dense`) read the embeddings directly.
        stride: Stride of the first block of a stage, or a list with the stride of each stage; for
            classification with `Plain` or `ProjectedResidual`.
        tie_weights: Whether layers of a stage share their weights if their widths are equal.
        activation_checkpointing: Whether to recompute blocks in the backward pass, which saves
            memory and takes more time.

    Attributes:
        stride: Number of tokens per position of the output.
    """

    def __init__(
        self,
        in_dim: int,
        block: list[BlockFactory] | BlockFactory = Conv,  # jsonargparse takes the first that fits
        connection: ConnectionFactory = Residual,
        depth: int | list[int] = 4,
        dim: int | list[int] = 128,
        branch: BranchFactory = Branch,
        transition: TransitionFactory = DenseTransition,
        norm: NormFactory = LayerNorm,
        final_norm: bool | NormFactory = True,
        stem: Literal["linear", "none"] | BlockFactory = "linear",
        stride: int | list[int] = 1,
        tie_weights: bool = False,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        depths = [depth] if isinstance(depth, int) else depth
        dims = [dim] * len(depths) if isinstance(dim, int) else dim
        strides = [stride] * len(depths) if isinstance(stride, int) else stride
        _check_sizes(depths, dims, strides)
        kinds = block if isinstance(block, list) else [block]
        if not kinds:
            raise ValueError("encoder.block is empty: name a block, such as block/lstm.yaml")
        layer = [partial(kind) for kind in kinds]  # distinct, so that equal ones are not tied
        places = _places(sum(depths), len(layer), norm)
        self.stem = _stem(stem, in_dim, dims[0])
        width = in_dim if self.stem is None else dims[0]
        stages: list[Stage] = []
        transitions: list[Transition] = []
        for i, num_layers in enumerate(depths):
            if i:
                transitions.append(transition(width, norm))
                width = transitions[-1].out_dim
            blocks = layer * num_layers
            stage = Stage(
                width,
                dims[i],
                blocks,
                [next(places) for _ in blocks],
                connection,
                branch,
                norm,
                strides[i],
                tie_weights,
                activation_checkpointing,
            )
            stages.append(stage)
            width = stage.out_dim
        self.stages = nn.ModuleList(stages)
        self.transitions = nn.ModuleList(transitions)
        if isinstance(final_norm, bool):
            final_norm = norm if final_norm else NoNorm
        self.norm = final_norm(width)
        self.out_dim = width
        self.stride = prod(part.stride for part in [*stages, *transitions])
        if tie_weights:
            _check_tied([branch.block for stage in stages for branch in stage.branches])
        if activation_checkpointing and any(isinstance(m, BatchNorm) for m in self.modules()):
            raise ValueError(
                "activation_checkpointing would count each batch twice in the statistics of "
                "BatchNorm: use another norm"
            )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` [B, L, in_dim] to [B, ceil(L / stride), out_dim], and its mask accordingly."""
        if self.stem is not None:
            x = self.stem(x, mask=mask)
        first, *others = self.stages
        x, mask = first(x, mask)
        for transition, stage in zip(self.transitions, others, strict=True):
            x, mask = stage(*transition(x, mask))
        return self.norm(x, mask), mask


def _check_sizes(depths: list[int], dims: list[int], strides: list[int]) -> None:
    if not depths or not len(depths) == len(dims) == len(strides):
        raise ValueError(
            f"depth, dim and stride must have one number for each stage; got {depths}, {dims} and "
            f"{strides}"
        )
    if min(*depths, *dims, *strides) < 1:
        raise ValueError(
            f"depth, dim and stride must be at least 1; got {depths}, {dims} and {strides}"
        )


def _check_tied(blocks: list[object]) -> None:
    """Raise an error if no two blocks can share weights."""
    if len(set(blocks)) == len(blocks):
        raise ValueError(
            "tie_weights: no two layers have blocks of the same widths, or depth is too small"
        )


def _places(num_layers: int, num_blocks: int, norm: NormFactory) -> Iterator[Place]:
    """Yield the positions of all blocks, with `num_blocks` in each layer."""
    depth = num_layers * num_blocks
    for position in range(depth):
        yield Place(position, depth, position // num_blocks + 1, norm)


def _stem(stem: str | BlockFactory, in_dim: int, dim: int) -> Block | None:
    if not isinstance(stem, str):
        return stem(in_dim, dim)
    if stem not in ("linear", "none"):
        raise ValueError(f"stem must be linear, none or a block; got {stem}")
    return Linear(in_dim, dim) if stem == "linear" and in_dim != dim else None


def _make(block: Callable[..., Block], widths: tuple[int, int], stride: int) -> Block:
    if stride == 1:
        return block(*widths)
    try:
        return block(*widths, stride=stride)
    except TypeError as error:
        raise ValueError(
            f"stride {stride} needs a block that can shorten a sequence, such as Conv: {error}"
        ) from error
