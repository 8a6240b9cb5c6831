"""Connections: everything that flows between the blocks of a stage.

A stage runs the same lines for each connection (see `residense.nn.encoder.Stage`):

    state = begin(x, mask)
    for i, branch: streams, state = read(state, i);  state = write(state, branch(*streams), i)
    return end(state)

A new connection is a new class in any file; blocks, stages and tasks stay as they are.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from residense.nn.blocks import Block
from residense.nn.norms import Norm, NormFactory

State: TypeAlias = (
    Any  # what flows between the blocks of a stage: nobody but their connection looks into it
)


class Connection(nn.Module):
    """Base of all connections: how the blocks of one stage read and write its state.

    Override what differs; as it stands each block reads what the one before it wrote. The state may be anything.
    A residual stream, say, with a learned gate:

        class Gated(Connection):
            def __init__(self, in_dim: int, dim: int, depth: int, start: float = 0.5):
                super().__init__(in_dim, dim, depth)
                self.project = nn.Linear(in_dim, dim)
                self.gate = nn.Parameter(torch.full((depth,), start))

            def widths(self, i):
                return self.dim, self.dim

            def begin(self, x, mask):
                return self.project(x)

            def write(self, state, y, i):
                return state + self.gate[i] * y

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.

    Attributes:
        out_dim: width of what leaves the stage.
        project: what enters a stream passes through this; to the connection map its output is the embedding.
        concatenates: whether blocks read sources side by side, so that the connection map shows shares of energy.
        held: set while the connection map is measured: then `hold` keeps coefficients fixed.
    """

    concatenates = False
    held = False

    def __init__(self, in_dim: int, dim: int, depth: int):
        super().__init__()
        self.in_dim, self.dim, self.depth = in_dim, dim, depth
        self.out_dim = dim
        self.project: nn.Module = nn.Identity()

    def widths(self, i: int) -> tuple[int, int]:
        """Width that block `i` reads and width that it must write."""
        return (self.in_dim if i == 0 else self.dim), self.dim

    @property
    def bypass(self) -> bool:
        """Whether anything passes by a block: not where the state after a block is what the block wrote."""
        return type(self).write is not Connection.write

    def wire(self, blocks: Sequence[Block]) -> None:
        """Look at the blocks, or initialise them, once they are made."""

    def begin(self, x: Tensor, mask: Tensor) -> State:
        """State before the first block, from the stage's input [B, L, in_dim]."""
        return x

    def read(self, state: State, i: int) -> tuple[tuple[Tensor, ...], State]:
        """What block `i` reads, and the state to hand to `write`.

        That is a tuple of streams, each [B, L, widths(i)[0]]: one for most blocks; attention can read three (query,
        key, value) and takes the first for those that are not given.
        """
        return (state,), state

    def write(self, state: State, y: Tensor, i: int) -> State:
        """State after block `i` wrote `y` [B, L, widths(i)[1]]."""
        return y

    def end(self, state: State) -> Tensor:
        """Output of the stage [B, L, out_dim]."""
        return state

    def hold(self, coefficients: Tensor) -> Tensor:
        """Pass on coefficients that were computed from the data; fixed while the connection map is measured."""
        return coefficients.detach() if self.held else coefficients


class Plain(Connection):
    """Each block reads what the one before it wrote: the control   x_i = f_i(x_{i-1})

    x ── f ── f ── f ──

    No parameters; the state is one tensor [B, L, D]. Gradients pass through every block, so deep stacks degrade.
    Nothing passes by a block, so a branch ignores `drop_path` and `scale: rezero` here, with a warning.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
    """


def operand(x: Tensor) -> Tensor:
    """`x` in the precision of products: cast once, where autocast would keep a copy for each product it is in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Projection(nn.Module):
    """Shortcut from one width to another: the identity where they are equal, else a linear map and a norm.

    Args:
        in_dim: width read.
        out_dim: width written.
        norm: norm after the map; null for none.
    """

    def __init__(self, in_dim: int, out_dim: int, norm: NormFactory | None = None):
        super().__init__()
        self.linear = nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim, bias=False)
        self.norm = Norm(out_dim) if norm is None or in_dim == out_dim else norm(out_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.norm(self.linear(x), mask)


class Stream(Connection):
    """Base of connections whose blocks all read and write the width of the stage; the input is projected to it.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
    """

    def __init__(self, in_dim: int, dim: int, depth: int):
        super().__init__(in_dim, dim, depth)
        self.project = Projection(in_dim, dim)

    def widths(self, i: int) -> tuple[int, int]:
        return self.dim, self.dim

    def begin(self, x: Tensor, mask: Tensor) -> State:
        return self.project(x, mask)
