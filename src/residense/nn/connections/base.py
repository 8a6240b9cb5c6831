"""The interface of connections, and the plain stack.

A connection owns everything that flows between the blocks of a stage. A stage runs the same loop
for each of them (see `residense.nn.encoder.Stage`):

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

State: TypeAlias = Any  # a tensor or a tuple; only the connection that made it looks inside


class Layout(NamedTuple):
    """The stage that a connection is made for.

    Attributes:
        in_dim: width of the input.
        dim: width of the stage.
        depth: number of blocks.
        stride: number of positions that block 0 turns into one.
        norm: norm of the encoder.
    """

    in_dim: int
    dim: int
    depth: int
    stride: int = 1
    norm: NormFactory = LayerNorm


class Connection(nn.Module):
    """Base class of all connections: what the blocks of a stage read, and where their output goes.

    Override `write`, and of the other methods those that differ. By default the state is one
    tensor [B, L, D] that each block reads. A residual stream with a learned gate:

        class Gated(Connection):
            def __init__(self, layout: Layout, start: float = 0.5):
                super().__init__(layout)
                self.gate = nn.Parameter(torch.full((layout.depth,), start))

            def write(self, state, y, i, mask):
                return state + self.gate[i] * y

    Args:
        layout: widths and depth of the stage.

    Attributes:
        skips: whether anything flows around a block, so that a block may write zeros.
        resizes: whether block 0 can read another width than that of the stage; else the stage
            projects its input.
        strides: whether block 0 can shorten the sequence.
        in_dim: width that `begin` takes.
        out_dim: width that `end` returns.
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
        """Return the width that block `i` reads and the width that it must write."""
        return self.in_dim if i == 0 else self.dim, self.dim

    def prepare(self, blocks: Sequence[Block]) -> None:
        """Make parameters that depend on the blocks, or scale the blocks' initial weights."""

    def begin(self, x: Tensor, mask: Tensor) -> State:
        """Return the state before block 0, from the stage's input [B, L, in_dim]."""
        return x

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor, ...], State]:
        """Return the streams that block `i` reads, each [B, L, width], and the state for `write`.

        Most blocks read one stream. Attention reads up to three, its query, key and value; missing
        ones are the first.
        """
        return (state,), state

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> State:
        """Return the state after block `i` wrote `y` [B, L, width]."""
        raise NotImplementedError  # pragma: no cover

    def end(self, state: State) -> Tensor:
        """Return the output of the stage [B, L, out_dim]."""
        return state


ConnectionFactory = Callable[[Layout], Connection]


class Plain(Connection):
    """Read the previous output: x_i = f_i(x_{i-1}).

    x ── f ── f ── f ──

    The control: no parameters, and gradients pass through every block, so deep stacks degrade.
    """

    skips = False
    resizes = True
    strides = True

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return y


def autocast(x: Tensor) -> Tensor:
    """Cast `x` as autocast would; once, where it would keep one copy for each product with `x`."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
