"""Connections: everything that flows between the blocks of a stage.

A stage runs the same four lines for each connection (see `residense.nn.encoder.Stage`):

    state = begin(x)
    for i, branch: streams, state = read(state, i);  state = write(state, branch(*streams), i)
    return end(state)

A new connection is a new class here or in any file of yours; blocks, stages and tasks stay as they are.

Shapes: B batch, L length, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn


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

            def begin(self, x):
                return self.project(x)

            def write(self, state, y, i):
                return state + self.gate[i] * y

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.

    Attributes:
        out_dim: width of what leaves the stage.
    """

    def __init__(self, in_dim: int, dim: int, depth: int):
        super().__init__()
        self.in_dim, self.dim, self.depth = in_dim, dim, depth
        self.out_dim = dim

    def widths(self, i: int) -> tuple[int, int]:
        """Width that block `i` reads and width that it must write."""
        return (self.in_dim if i == 0 else self.dim), self.dim

    def begin(self, x: Tensor) -> Any:
        """State before the first block, from the stage's input [B, L, in_dim]."""
        return x

    def read(self, state: Any, i: int) -> tuple[tuple[Tensor, ...], Any]:
        """What block `i` reads, and the state to hand to `write`.

        That is a tuple of streams, each [B, L, widths(i)[0]]: one for most blocks; attention can read three (query,
        key, value) and takes the first for those that are not given.
        """
        return (state,), state

    def write(self, state: Any, y: Tensor, i: int) -> Any:
        """State after block `i` wrote `y` [B, L, widths(i)[1]]."""
        return y

    def end(self, state: Any) -> Tensor:
        """Output of the stage [B, L, out_dim]."""
        return state


class Plain(Connection):
    """Each block reads what the one before it wrote: the control   x_i = f_i(x_{i-1})

    x ── f ── f ── f ──

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
    """


class Residual(Connection):
    """Each block adds to a stream   x_i = P x_{i-1} + f_i(x_{i-1})   (He et al. 2016, arXiv 1512.03385).

    x ─┬─ f ─ + ─┬─ f ─ + ─
       └──────┘  └──────┘

    P is the identity, or a learned projection in front of the first block where the width changes. The norm's place
    (before, after, both) is the branch's choice.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
    """

    def __init__(self, in_dim: int, dim: int, depth: int):
        super().__init__(in_dim, dim, depth)
        self.project = nn.Identity() if in_dim == dim else nn.Linear(in_dim, dim, bias=False)

    def write(self, state: Tensor, y: Tensor, i: int) -> Tensor:
        return (self.project(state) if i == 0 else state) + y


class Dense(Connection):
    """Each block reads all earlier outputs and adds `growth_rate` features   (Huang et al. 2017, arXiv 1608.06993).

    x ─┬─ f ─┬─ f ─┬─ f ─┬─     x_i = f_i(W_i relu(norm([x_0, x_1, ..., x_{i-1}])))
       ├─────┴─────┤     │
       └───────────┴─────┘

    The output is everything: [B, L, in_dim + depth * growth_rate]. A `Transition` compresses it between stages.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage; not used, the growth rate sets all widths.
        depth: number of blocks.
        growth_rate: features that each block adds.
        bottleneck: width that each block reads, in multiples of the growth rate; 0 lets blocks read the bare
            concatenation.
    """

    def __init__(self, in_dim: int, dim: int, depth: int, growth_rate: int = 32, bottleneck: int = 4):
        super().__init__(in_dim, dim, depth)
        if growth_rate < 1 or bottleneck < 0:
            raise ValueError(f"growth_rate must be at least 1 and bottleneck 0; got {growth_rate} and {bottleneck}")
        self.growth_rate, self.narrow = growth_rate, bottleneck * growth_rate
        self.out_dim = in_dim + depth * growth_rate
        self.squeeze = nn.ModuleList(self._squeeze(in_dim + i * growth_rate) for i in range(depth))

    def _squeeze(self, width: int) -> nn.Module:
        if not self.narrow:
            return nn.Identity()
        return nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, self.narrow))

    def widths(self, i: int) -> tuple[int, int]:
        return self.narrow or self.in_dim + i * self.growth_rate, self.growth_rate

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,)

    def read(self, state: tuple[Tensor, ...], i: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return (self.squeeze[i](torch.cat(state, -1)),), state

    def write(self, state: tuple[Tensor, ...], y: Tensor, i: int) -> tuple[Tensor, ...]:
        return (*state, y)

    def end(self, state: tuple[Tensor, ...]) -> Tensor:
        return torch.cat(state, -1)
