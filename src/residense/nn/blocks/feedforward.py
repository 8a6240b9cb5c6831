"""Position-wise feed-forward network of a Transformer layer.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks.base import ACTIVATIONS, Block


class FeedForward(Block):
    """Two-layer network applied to each token (Vaswani et al. 2017, arXiv 1706.03762).

    Differences from the papers: `gelu` is the default instead of ReLU; `swiglu` has biases and the
    same hidden width as the other activations, instead of two thirds of it.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output.
        expansion: Hidden width as a multiple of `out_dim`.
        activation: `relu`, `gelu`, or `swiglu`, which gates the hidden layer with a second linear
            map (arXiv 2002.05202).
        dropout: Probability of zeroing a hidden feature.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        expansion: int = 4,
        activation: Literal["relu", "gelu", "swiglu"] = "gelu",
        dropout: float = 0.0,
    ):
        super().__init__(in_dim, out_dim)
        hidden = expansion * out_dim
        self.activation = activation
        self.up = nn.Linear(in_dim, hidden)
        self.down = nn.Linear(hidden, out_dim)
        self.gate = nn.Linear(in_dim, hidden) if activation == "swiglu" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        if self.gate is not None:
            hidden = F.silu(self.gate(x)) * self.up(x)
        else:
            hidden = ACTIVATIONS[self.activation](self.up(x))
        return self.down(self.dropout(hidden))

    @torch.no_grad()
    def scale_init(self, factor: float) -> None:
        for linear in (self.up, self.down):
            nn.init.xavier_uniform_(linear.weight, gain=factor)
