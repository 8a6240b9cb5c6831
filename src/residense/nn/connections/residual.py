"""Connections with one residual stream.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from residense.nn.blocks import Block
from residense.nn.blocks.base import ACTIVATIONS
from residense.nn.connections.base import Connection, Layout, State
from residense.nn.norms import NormFactory


class Residual(Connection):
    """Add the output of each block to its input: x_i = x_{i-1} + f_i(x_{i-1}).

    x ─┬─ f ─ + ─┬─ f ─ + ─
       └──────┘  └──────┘

    He et al. 2016, arXiv 1603.05027. `Branch` normalizes the input of the block by default
    (pre-activation).
    """

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return state + y


class ProjectedResidual(Connection):
    """Residual connection with a projection shortcut: x_i = s(P x_{i-1} + f_i(x_{i-1})).

    x ─┬─ f ─ + ─ s ─┬─ f ─ + ─ s ─
       └─ P ──┘      └──────┘

    He et al. 2016, arXiv 1512.03385. P is a linear map and a norm at block 0 if the width changes
    or the stride is above 1, and the identity otherwise. Use it with `stem: none`, so that block 0
    reads the embeddings.

    Args:
        layout: Dimensions of the stage.
        activation: Activation s after each sum.
        norm: Norm of the projection; null for the norm of the encoder, `NoNorm` for none.
    """

    resizes = True
    strides = True

    def __init__(
        self,
        layout: Layout,
        activation: Literal["none", "relu", "gelu"] = "relu",
        norm: NormFactory | None = None,
    ):
        super().__init__(layout)
        self.activation = ACTIVATIONS[activation]
        self.stride = layout.stride
        self.projects = layout.in_dim != layout.dim or layout.stride > 1
        if self.projects:
            self.projection = nn.Linear(layout.in_dim, layout.dim, bias=False)
            self.norm = (norm or layout.norm)(layout.dim)

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        if i == 0 and self.projects:
            kept = state[:, :: self.stride].contiguous()  # one graph for all lengths
            state = self.norm(self.projection(kept), mask)
        return self.activation(state + y)


class PostNorm(Connection):
    """Normalize each sum: x_i = norm(x_{i-1} + f_i(x_{i-1})).

    x ─┬─ f ─ + ─ norm ─┬─ f ─ + ─ norm ─
       └──────┘         └──────┘

    Vaswani et al. 2017, arXiv 1706.03762. Use it with `branch.norm: none` and learning rate warmup.

    Args:
        layout: Dimensions of the stage.
        norm: Norm of the sums; null for the norm of the encoder.
    """

    def __init__(self, layout: Layout, norm: NormFactory | None = None):
        super().__init__(layout)
        self.norms = nn.ModuleList((norm or layout.norm)(layout.dim) for _ in range(layout.depth))

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return self.norms[i](state + y, mask)


class DeepNorm(PostNorm):
    """Post-norm for very deep stacks: x_i = norm(a x_{i-1} + f_i(x_{i-1})), a = depth ** 1/4.

    Wang et al. 2022, arXiv 2203.00555. Initial weights of the blocks are divided by (4 depth) **
    1/4; recurrent blocks are not supported. Differences from the paper: `depth` counts the blocks
    of the stage, two for each layer of the paper; Xavier initialization is uniform instead of
    normal, with the same variance; convolutions, which the paper does not cover, scale their own
    initialization, and the gate of `swiglu` keeps its own.

    Args:
        layout: Dimensions of the stage.
        norm: Norm of the sums; null for the norm of the encoder.
    """

    def prepare(self, blocks: Sequence[Block]) -> None:
        for block in dict.fromkeys(blocks):  # each tied block once
            block.scale_init((4 * self.depth) ** -0.25)

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return self.norms[i](torch.add(y, state, alpha=self.depth**0.25), mask)


class UNetSkips(Connection):
    """Residual stream with skips from its first half to its second half.

    read_{n-1-i} += sigmoid(w_i) x_{i+1}

    x ─ f ─┬─ f ─┬─ f ─ + ─ f ─ + ─ f ─     (each f with its own residual)
           │     └──────┘       │
           └────────────────────┘

    Ronneberger et al. 2015, arXiv 1505.04597; with gates as in modded-nanogpt. Differences from the
    paper: there is no pooling or upsampling; skips are added with a learned weight instead of
    concatenated; each block also has a residual connection.

    Args:
        layout: Dimensions of the stage.
        start: Initial value of w.
    """

    def __init__(self, layout: Layout, start: float = -1.5):
        super().__init__(layout)
        self.gates = nn.ParameterList(torch.full((1,), start) for _ in range(layout.depth // 2))

    def begin(self, x: Tensor, mask: Tensor) -> State:
        return x, ()

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        x, kept = state
        if self.depth - 1 - i < len(kept):
            x = x + self.gates[len(kept) - 1].sigmoid() * kept[-1]
            kept = kept[:-1]
        return (x,), (x, kept)

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> State:
        x, kept = state
        x = x + y
        return x, (*kept, x) if i < self.depth // 2 else kept

    def end(self, state: State) -> Tensor:
        return state[0]
