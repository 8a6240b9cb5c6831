"""The interface of connections, and the plain connection.

A connection defines what the blocks of a stage read and where their outputs go. A stage runs the
same loop for all connections (see `residense.nn.encoder.Stage`):

    state = begin(x, mask)
    for i, block:
        streams, state = read(state, i, mask)
        state = write(state, block(*streams, mask=mask), i, mask)
    return end(state)

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from residense.nn.blocks import Block
from residense.nn.norms import LayerNorm, NormFactory

State: TypeAlias = Any  # a tensor or a tuple, opaque outside of the connection


class Layout(NamedTuple):
    """Dimensions of the stage that a connection belongs to.

    Attributes:
        in_dim: Width of the input.
        dim: Width of the stage.
        depth: Number of blocks.
        stride: Stride of block 0.
        norm: Default norm of the encoder.
    """

    in_dim: int
    dim: int
    depth: int
    stride: int = 1
    norm: NormFactory = LayerNorm


class Connection(nn.Module):
    """Base class of connections, which define what blocks read and where their outputs go.

    Subclasses override `write` and other methods as needed. By default the state is a single tensor
    [B, L, D] that every block reads. Weight decay applies to parameters of two or more dimensions.
    For example, a residual stream with learned gates:

        class Gated(Connection):
            def __init__(self, layout: Layout, start: float = 0.5):
                super().__init__(layout)
                self.gate = nn.Parameter(torch.full((layout.depth,), start))

            def write(self, state, y, i, mask):
                return state + self.gate[i] * y

    Args:
        layout: Dimensions of the stage.

    Attributes:
        skips: Whether the connection bypasses blocks, so that a block may output zeros.
        resizes: Whether block 0 can read an input of a different width; otherwise the stage
            projects it.
        strides: Whether block 0 can shorten the sequence.
        in_dim: Width of the input of `begin`.
        out_dim: Width of the output of `end`.
    """

    skips: ClassVar[bool] = True
    resizes: ClassVar[bool] = False
    strides: ClassVar[bool] = False

    def __init__(self, layout: Layout):
        super().__init__()
        if layout.stride > 1 and not self.strides:
            raise ValueError(
                f"{type(self).__name__} cannot shorten a sequence: use stride 1 and a transition "
                "that pools, or connection ProjectedResidual"
            )
        self.in_dim = layout.in_dim if self.resizes else layout.dim
        self.dim = layout.dim
        self.depth = layout.depth
        self.out_dim = layout.dim

    def widths(self, i: int) -> tuple[int, int]:
        """Return the input and output widths of block `i`."""
        return self.in_dim if i == 0 else self.dim, self.dim

    def prepare(self, blocks: Sequence[Block]) -> None:
        """Create parameters that depend on the blocks, or rescale their initial weights."""

    def begin(self, x: Tensor, mask: Tensor) -> State:
        """Return the initial state from the input of the stage [B, L, in_dim]."""
        return x

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor, ...], State]:
        """Return the streams that block `i` reads, each [B, L, width], and the state for `write`.

        Most blocks read one stream. Attention reads up to three (query, key and value); missing
        ones default to the first.
        """
        return (state,), state

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> State:
        """Return the state after block `i` has returned `y` [B, L, width]."""
        raise NotImplementedError  # pragma: no cover

    def end(self, state: State) -> Tensor:
        """Return the output of the stage [B, L, out_dim]."""
        return state


ConnectionFactory = Callable[[Layout], Connection]


class Plain(Connection):
    """No shortcuts: x_i = f_i(x_{i-1}).

    x ── f ── f ── f ──

    The control. It has no parameters, and gradients pass through every block, so deep stacks
    degrade.
    """

    skips = False
    resizes = True
    strides = True

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return y


def autocast(x: Tensor) -> Tensor:
    """Cast `x` to the autocast dtype once, instead of once for each product with `x`."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
