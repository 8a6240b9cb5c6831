"""Connections with one stream that blocks add to.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from residense.nn.blocks import Block
from residense.nn.blocks.base import ACTIVATIONS
from residense.nn.connections.base import Connection, Projection, State, Stream
from residense.nn.norms import LayerNorm, Norm, NormFactory


class Residual(Connection):
    """Each block adds to a stream   x_i = s(N(a P x_{i-1} + f_i(x_{i-1})))   (He et al. 2016, arXiv 1512.03385).

    x ─┬─ f ─ + ─┬─ f ─ + ─
       └──────┘  └──────┘

    P is the identity, or a learned projection beside the first block where the width changes (in_dim * dim weights).
    As it stands there is no norm N in the stream, a = 1 and no activation s: norms inside the branch are the branch's
    choice. The state is one tensor [B, L, D].

    Different from the paper: by default nothing follows the sum, as in its successor (arXiv 1603.05027), where the
    first ResNets have a ReLU (`activation: relu`); P has no batch norm (`shortcut_norm: BatchNorm`) and no stride.
    Different from DeepNorm: `depth` counts the blocks of the stage, two for a layer of the paper, as each stage begins
    a stream of its own, so that several stages have larger updates than one of the same depth; Xavier weights are
    uniform instead of normal, with the same variance; the gate of `swiglu` and blocks other than attention and
    feed-forward, which the paper does not have, keep their own init, times the paper's factor in convolutions.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        norm: `none`; `post` normalises each sum, as the first Transformers do; `deepnorm` (arXiv 2203.00555) weighs
            the stream by a = depth ** 1/4 as well and divides initial weights of the blocks by (4 depth) ** 1/4.
        norm_type: norm in the stream.
        activation: activation s after each sum, as in the first ResNets.
        shortcut_norm: norm after the projection P; null for none.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        norm: Literal["none", "post", "deepnorm"] = "none",
        norm_type: NormFactory = LayerNorm,
        activation: Literal["none", "relu", "gelu"] = "none",
        shortcut_norm: NormFactory | None = None,
    ):
        super().__init__(in_dim, dim, depth)
        self.project = Projection(in_dim, dim, shortcut_norm)
        self.norms = nn.ModuleList(
            (Norm if norm == "none" else norm_type)(dim) for _ in range(depth)
        )
        self.activation = ACTIVATIONS[activation]
        self.deep = norm == "deepnorm"

    def wire(self, blocks: Sequence[Block]) -> None:
        if self.deep:
            for block in dict.fromkeys(blocks):  # a shared block once
                block.scale_init((4 * self.depth) ** -0.25)

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return x, mask

    def read(
        self, state: tuple[Tensor, Tensor], i: int
    ) -> tuple[tuple[Tensor], tuple[Tensor, Tensor]]:
        return (state[0],), state

    def write(self, state: tuple[Tensor, Tensor], y: Tensor, i: int) -> tuple[Tensor, Tensor]:
        x, mask = state
        x = self.project(x, mask) if i == 0 else x
        weight = (
            self.depth**0.25 if self.deep else 1.0
        )  # two blocks make one layer of the paper's encoder: (2N)^1/4
        return self.activation(self.norms[i](torch.add(y, x, alpha=weight), mask)), mask

    def end(self, state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0]


class Highway(Stream):
    """Each block is let in by a gate   x_i = t f_i(x_{i-1}) + (1 - t) x_{i-1},  t = sigmoid(W_i x_{i-1} + b_i)

    x ─┬─ f ── t ──── + ─
       └────── 1-t ───┘

    Srivastava et al. 2015, arXiv 1505.00387. D ** 2 + D parameters for each block, one gate [B, L, D] kept for each.
    Different from the paper: f is any block, in a branch whose norm the gate does not see; the gate looks at the token
    alone, also beside convolutions; the width is changed by a linear map in front, not by a layer without a gate.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        bias: initial bias of the gates; below zero, so that the stream is carried at first.
    """

    def __init__(self, in_dim: int, dim: int, depth: int, bias: float = -2.0):
        super().__init__(in_dim, dim, depth)
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        for parameter in self.gates.parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, bias)

    def write(self, state: Tensor, y: Tensor, i: int) -> Tensor:
        gate = self.hold(self.gates[i](state).sigmoid())
        return state + gate * (y - state)


class UNetSkips(Stream):
    """A residual stream whose second half reads the first, last in first out   read_{n-1-i} += sigmoid(w_i) x_{i+1}

    x ─ f ─┬─ f ─┬─ f ─ + ─ f ─ + ─ f ─     (each f with its own residual)
           │     └──────┘       │
           └────────────────────┘

    Ronneberger et al. 2015, arXiv 1505.04597; gated as in the records of modded-nanogpt. One parameter for each pair
    of blocks; half of the outputs are kept. Different from the paper: nothing is pooled or upsampled, skips are added
    with a learned weight instead of concatenated, and each block has a residual connection besides.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        start: initial w of the gates.
    """

    def __init__(self, in_dim: int, dim: int, depth: int, start: float = -1.5):
        super().__init__(in_dim, dim, depth)
        self.gates = nn.ParameterList(torch.full((1,), start) for _ in range(depth // 2))

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.project(x, mask), ()

    def read(self, state: State, i: int) -> tuple[tuple[Tensor], State]:
        x, kept = state
        if self.depth - 1 - i < len(kept):
            x, kept = x + self.gates[len(kept) - 1].sigmoid() * kept[-1], kept[:-1]
        return (x,), (x, kept)

    def write(self, state: State, y: Tensor, i: int) -> State:
        x, kept = state[0] + y, state[1]
        return x, (*kept, x) if i < self.depth // 2 else kept

    def end(self, state: State) -> Tensor:
        return state[0]
