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
    """Add each block to a stream: x_i = x_{i-1} + f_i(x_{i-1}).

    x ─┬─ f ─ + ─┬─ f ─ + ─
       └──────┘  └──────┘

    He et al. 2016, arXiv 1603.05027. Norms inside the branch are up to `Branch`.
    """

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return state + y


class ProjectedResidual(Connection):
    """Add each block to a projected stream: x_i = s(P x_{i-1} + f_i(x_{i-1})).

    x ─┬─ f ─ + ─ s ─┬─ f ─ + ─ s ─
       └─ P ──┘      └──────┘

    He et al. 2016, arXiv 1512.03385. P is a linear map and a norm beside block 0 where the width
    changes or the stride is above 1, and the identity elsewhere. Use it with `stem: none`, so that
    block 0 reads the embeddings.

    Args:
        layout: widths and depth of the stage.
        activation: activation s after each sum.
        norm: norm of the projection; null for that of the encoder, `NoNorm` for none.
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
            kept = state[:, :: self.stride].contiguous()  # one graph for even and odd lengths
            state = self.norm(self.projection(kept), mask)
        return self.activation(state + y)


class PostNorm(Connection):
    """Normalize each sum: x_i = norm(x_{i-1} + f_i(x_{i-1})).

    x ─┬─ f ─ + ─ norm ─┬─ f ─ + ─ norm ─
       └──────┘         └──────┘

    Vaswani et al. 2017, arXiv 1706.03762. Use it with `branch.norm: none`; it needs warm-up.

    Args:
        layout: widths and depth of the stage.
        norm: norm of the sums; null for that of the encoder.
    """

    def __init__(self, layout: Layout, norm: NormFactory | None = None):
        super().__init__(layout)
        self.norms = nn.ModuleList((norm or layout.norm)(layout.dim) for _ in range(layout.depth))

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return self.norms[i](state + y, mask)


class DeepNorm(PostNorm):
    """Post-norm for very deep stacks: x_i = norm(a x_{i-1} + f_i(x_{i-1})), a = depth ** 1/4.

    Wang et al. 2022, arXiv 2203.00555. Initial weights of the blocks are divided by
    (4 depth) ** 1/4; recurrent blocks are refused. Different from the paper: the depth is that of
    the stage, in blocks, two for a layer of the paper; Xavier weights are uniform instead of
    normal, with the same variance; convolutions and the gate of `swiglu`, which the paper does not
    have, keep their own initialization times the paper's factor.

    Args:
        layout: widths and depth of the stage.
        norm: norm of the sums; null for that of the encoder.
    """

    def prepare(self, blocks: Sequence[Block]) -> None:
        for block in dict.fromkeys(blocks):  # a tied block once
            block.scale_init((4 * self.depth) ** -0.25)

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return self.norms[i](torch.add(y, state, alpha=self.depth**0.25), mask)


class UNetSkips(Connection):
    """A residual stream whose second half also reads the first: read_{n-1-i} += sigmoid(w_i) x_{i+1}.

    x ─ f ─┬─ f ─┬─ f ─ + ─ f ─ + ─ f ─     (each f with its own residual)
           │     └──────┘       │
           └────────────────────┘

    Ronneberger et al. 2015, arXiv 1505.04597; gated as in the records of modded-nanogpt. Different
    from the paper: nothing is pooled or upsampled, skips are added with a learned weight instead of
    concatenated, and each block has a residual connection besides.

    Args:
        layout: widths and depth of the stage.
        start: initial w of the gates.
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
