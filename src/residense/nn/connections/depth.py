"""Connections that mix all earlier outputs with learned coefficients.

Each keeps all outputs, O(depth * B * L * D), and sums them one by one without stacking them.

Shapes: B batch, L length, D width, C inputs of a block; mask [B, L] is True at real tokens.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks import Block
from residense.nn.connections.base import Connection, Layout, State, autocast

Past = tuple[Tensor, ...]


def mix(weights: Iterable[Tensor], sources: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of the sources [B, L, D]; the weights broadcast against them."""
    products = (weight * source for weight, source in zip(weights, sources, strict=True))
    return reduce(torch.add, products)


class ScalarMix(Connection):
    """Residual stream whose output is a learned mix of all states: y = g sum_j softmax(w)_j x_j.

    x_0 ─┬─ f + ─ x_1 ─┬─ f + ─ x_2 ─┬─ S ─
         ├──────────┘  ├──────────┘  │
         └─────────────┴─────────────┘

    Peters et al. 2018 (ELMo), arXiv 1802.05365. Initialized to the mean of the states. It has depth
    + 2 parameters.

    Args:
        layout: Dimensions of the stage.
    """

    def __init__(self, layout: Layout):
        super().__init__(layout)
        self.weights = nn.Parameter(torch.zeros(layout.depth + 1))
        self.scale = nn.Parameter(torch.ones(1))

    def begin(self, x: Tensor, mask: Tensor) -> Past:
        return (x,)

    def read(self, state: Past, i: int, mask: Tensor) -> tuple[tuple[Tensor], Past]:
        return (state[-1],), state

    def write(self, state: Past, y: Tensor, i: int, mask: Tensor) -> Past:
        return (*state, state[-1] + y)

    def end(self, state: Past) -> Tensor:
        return self.scale * mix(self.weights.softmax(0), state)


class DepthWeighted(Connection):
    """Residual stream with a learned weighted average of all states (DenseFormer).

    x_0 ─┬─ f + ─ S ─┬─ f + ─ S ─     z_i = x_{i-1} + f_i(x_{i-1}),  x_i = sum_j a_ij z_j,  z_0 = x_0
         ├───────┘   │        │
         └───────────┴────────┘

    Pagliardini et al. 2024, arXiv 2402.02622. Initialized to `Residual`: a_ii = 1 and all other
    weights 0. It has about depth ** 2 / (2 period dilation) parameters. Difference from the paper:
    a block is half a Transformer layer (attention or feed-forward), and the defaults average after
    each block. The model of the paper, which averages layer outputs after each layer, is `dilation:
    2, period: 2`; its 4x5 model is `dilation: 8, period: 10`.

    Args:
        layout: Dimensions of the stage.
        dilation: Spacing between the states that are averaged.
        period: Number of blocks between two averages.
    """

    def __init__(self, layout: Layout, dilation: int = 1, period: int = 1):
        super().__init__(layout)
        if dilation < 1 or period < 1:
            raise ValueError(f"dilation and period must be at least 1; got {dilation} and {period}")
        self.dilation = dilation
        self.period = period
        sizes = [i // dilation + 1 for i in range(period, layout.depth + 1, period)]
        self.means = nn.ParameterList(torch.eye(size)[-1] for size in sizes)

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Past]:
        return x, (x,)

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        return (state[0],), state

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> tuple[Tensor, Past]:
        x, past = state
        x = x + y
        past = (*past, x)
        written = i + 1
        if written % self.period == 0:
            sources = past[written % self.dilation :: self.dilation]
            x = mix(self.means[written // self.period - 1], sources)
        return x, past

    def end(self, state: State) -> Tensor:
        return state[0]


class AttentionResiduals(Connection):
    """Attend over all earlier outputs: x_i = sum_j softmax_j(w_i . rms(v_j)) v_j.

    v_0 ─┬─ f ─ v_1 ─┬─ f ─ v_2 ─┬─ S ─     v_0 = x, v_j = f_j(x_j)
         └───────────S           S
         └───────────────────────┘

    Kimi Team 2026, arXiv 2603.15031. Initialized to the mean of all earlier outputs (w = 0). It has
    D parameters per block. Difference from the paper: rms has no learned scale, since w absorbs it.
    As in the paper, attention and feed-forward are separate blocks; any other block works too.

    Args:
        layout: Dimensions of the stage.
        block_size: Number of consecutive outputs that are summed, so that attention over the sums
            needs less memory; 1 attends over every output.
    """

    def __init__(self, layout: Layout, block_size: int = 1):
        super().__init__(layout)
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1; got {block_size}")
        self.block_size = block_size
        # block 0 has one source only, so query i belongs to block i + 1, and the last to the output
        self.queries = nn.ParameterList(torch.zeros(layout.dim) for _ in range(layout.depth))

    def begin(self, x: Tensor, mask: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return (self._key_and_value(x),)

    def _key_and_value(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return autocast(F.rms_norm(value, value.shape[-1:])), value

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        _, first = state[0]
        return (first if i == 0 else self._attend(state, i - 1),), state

    def _attend(self, state: State, i: int) -> Tensor:
        keys, values = zip(*state, strict=True)
        scores = torch.stack([key @ self.queries[i] for key in keys])  # [sources, B, L]
        return mix(scores.softmax(0)[..., None], values)

    def write(
        self, state: State, y: Tensor, i: int, mask: Tensor
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        if i % self.block_size == 0:
            return (*state, self._key_and_value(y))
        _, total = state[-1]
        return (*state[:-1], self._key_and_value(total + y))

    def end(self, state: State) -> Tensor:
        return self._attend(state, self.depth - 1)


class MultiwayDynamicDense(Connection):
    """Mix all earlier outputs by token, separately for each input of a block (MUDDFormer).

    z_0 ─┬─ S_q,k,v,r ─ f + ─ z_1 ─┬─ S_q,k,v,r ─ f + ─ z_2 ─ S ─
         └─────────────────────────┘

    x_c = sum_j (b_cj + g_cj) z_j for c = query, key, value and the residual stream r of attention,
    and for r alone where a block reads one stream; g = W_2 gelu(W_1 rms(z_i)),
    z_{i+1} = x_r + f(x_q, x_k, x_v).

    Xiao et al. 2025, arXiv 2502.12170. Initialized to `Residual`: b selects the last output and W_2
    = 0. Block i has about C (i + 2) (D + C (i + 1)) parameters. Differences from the paper: the
    paper mixes once before each layer, with four streams for attention and a plain residual
    connection for feed-forward; here attention and feed-forward are separate blocks that both read
    a mix. The first block weights its only source. Query, key and value share the norm of the
    branch. The norms of the mixed outputs (PrePostDANorm), wider feed-forward layers at greater
    depth and the wider last W_1 are not implemented.

    Args:
        layout: Dimensions of the stage.
    """

    def prepare(self, blocks: Sequence[Block]) -> None:
        ways = [block.inputs + 1 if block.inputs > 1 else 1 for block in blocks] + [1]
        self.dynamic = nn.ModuleList(self._weights(i, num_ways) for i, num_ways in enumerate(ways))

    def _weights(self, i: int, num_ways: int) -> nn.Sequential:
        """Return the network that computes the weights of `num_ways` mixes of i + 1 sources."""
        up = nn.Linear(self.dim, num_ways * (i + 2), bias=False)
        down = nn.Linear(num_ways * (i + 2), num_ways * (i + 1))
        nn.init.zeros_(down.weight)
        down.bias.data.copy_(torch.eye(i + 1)[-1].repeat(num_ways))  # b
        return nn.Sequential(up, nn.GELU(), down)

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Past, Tensor]:
        return (x,), x

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor, ...], State]:
        past, _ = state
        *streams, residual = self._mix(past, i)
        return tuple(streams) or (residual,), (past, residual)

    def _mix(self, past: Past, i: int) -> Tensor:
        """Return the streams [C, B, L, D] of block `i`."""
        weights = self.dynamic[i](F.rms_norm(past[-1], past[-1].shape[-1:]))
        weights = weights.unflatten(-1, (-1, len(past)))  # [B, L, C, sources]
        return mix(weights.movedim((-2, -1), (1, 0))[..., None], past)

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> tuple[Past, Tensor]:
        past, residual = state
        return (*past, residual + y), residual

    def end(self, state: State) -> Tensor:
        past, _ = state
        return self._mix(past, self.depth)[0]
