"""The position-wise half of a Transformer layer.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Positive
from residense.nn.blocks.base import ACTIVATIONS, Block


class FeedForward(Block):
    """Position-wise two-layer network   (Vaswani et al. 2017, arXiv 1706.03762).

    Different from the paper: `gelu` by default, where it has ReLU; `swiglu` has biases, and as many hidden features as
    the others, half as many weights more, where its paper has two thirds of them.

    Args:
        in_dim: width read.
        out_dim: width written.
        expansion: hidden width, in multiples of `out_dim`.
        activation: `relu`, `gelu`, or `swiglu`, which gates the hidden layer by another one (arXiv 2002.05202).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        expansion: Positive = 4,
        activation: Literal["relu", "gelu", "swiglu"] = "gelu",
    ):
        super().__init__(in_dim, out_dim)
        self.activation, hidden = activation, expansion * out_dim
        self.up, self.down = nn.Linear(in_dim, hidden), nn.Linear(hidden, out_dim)
        self.gate = nn.Linear(in_dim, hidden) if activation == "swiglu" else None

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(ACTIVATIONS[self.activation](self.up(x)))

    @torch.no_grad()
    def scale_init(self, factor: float) -> None:
        for linear in (self.up, self.down):
            nn.init.xavier_uniform_(linear.weight, gain=factor)
