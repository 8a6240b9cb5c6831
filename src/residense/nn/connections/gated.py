"""Residual connections with a gate for each feature.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

import torch
from torch import Tensor, nn

from residense.nn.connections.base import Connection, Layout


class Highway(Connection):
    """Gate each block: x_i = t f_i(x_{i-1}) + (1 - t) x_{i-1}, t = sigmoid(W_i x_{i-1} + b_i).

    x ─┬─ f ── t ──── + ─
       └────── 1-t ───┘

    Srivastava et al. 2015, arXiv 1505.00387. Difference from the paper: the gate reads the stream
    before the norm of the branch, one token at a time, even if the block is a convolution.

    Args:
        layout: Dimensions of the stage.
        bias: Initial bias of the gates; a negative value initially carries the stream past the
            block.
    """

    def __init__(self, layout: Layout, bias: float = -2.0):
        super().__init__(layout)
        self.gates = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in range(self.depth))
        for gate in self.gates:
            nn.init.constant_(gate.get_parameter("bias"), bias)

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        return state + self.gates[i](state).sigmoid() * (y - state)


class GatedResidual(Connection):
    """Combine stream and block with a gated recurrent unit: x_i = (1 - z) x_{i-1} + z h.

    x ─┬─ f ── GRU ─     r = sigmoid(W_r y + U_r x),  z = sigmoid(W_z y + U_z x - b)
       └────────┘        h = tanh(W_h y + U_h (r x)),  y = f_i(x)

    Parisotto et al. 2020 (GTrXL), arXiv 1910.06764. It has 6 D ** 2 + D parameters per block.
    Difference from the paper: there is no ReLU between the block and the gate.

    Args:
        layout: Dimensions of the stage.
        bias: Initial b; a positive value initially carries the stream past the block.
    """

    def __init__(self, layout: Layout, bias: float = 2.0):
        super().__init__(layout)
        dim, each = layout.dim, range(layout.depth)
        self.from_block = nn.ModuleList(nn.Linear(dim, 3 * dim, bias=False) for _ in each)
        self.from_stream = nn.ModuleList(nn.Linear(dim, 2 * dim, bias=False) for _ in each)
        self.candidates = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in each)
        self.biases = nn.ParameterList(torch.full((dim,), bias) for _ in each)

    def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
        reset, update, candidate = self.from_block[i](y).chunk(3, -1)
        stream_reset, stream_update = self.from_stream[i](state).chunk(2, -1)
        reset = (reset + stream_reset).sigmoid()
        update = (update + stream_update - self.biases[i]).sigmoid()
        candidate = (candidate + self.candidates[i](reset * state)).tanh()
        return state + update * (candidate - state)
