"""Connections that weigh all earlier outputs with learned coefficients.

Each keeps all outputs, O(depth * B * L * D), and mixes them one by one: no stack of them is ever copied.

Shapes: B batch, L length, D width, C streams that a block reads; mask [B, L] is True at real tokens.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Positive
from residense.nn.blocks import Block
from residense.nn.connections.base import State, Stream, operand


def mix(weights: Iterable[Tensor], sources: Sequence[Tensor]) -> Tensor:
    """Sum of the sources [B, L, D], each times its weight: a scalar, or what broadcasts with it."""
    products = (weight * source for weight, source in zip(weights, sources, strict=True))
    return reduce(torch.add, products)


class DepthWeighted(Stream):
    """A residual stream that is replaced by a learned mean of all its past   (DenseFormer, arXiv 2402.02622).

    x_0 ─┬─ f + ─ S ─┬─ f + ─ S ─     z_i = x_{i-1} + f_i(x_{i-1}),  x_i = sum_j a_ij z_j,  z_0 = x_0
         ├───────┘   │        │
         └───────────┴────────┘

    a_ii = 1 and all others 0 at the start: then this is `Residual`. About depth ** 2 / (2 period dilation) parameters.

    Different from the paper: a block here is half a Transformer layer (attention, or feed-forward), there a whole one.
    With such blocks the paper's model, which takes a mean after each layer of what all layers left, is `dilation: 2,
    period: 2`, and its 4x5 model is `dilation: 8, period: 10`; the defaults take a mean after each half.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        dilation: only every `dilation`-th output before is read.
        period: only after every `period`-th block a mean is taken.
    """

    def __init__(
        self, in_dim: int, dim: int, depth: int, dilation: Positive = 1, period: Positive = 1
    ):
        super().__init__(in_dim, dim, depth)
        if dilation < 1 or period < 1:
            raise ValueError(f"dilation and period must be at least 1; got {dilation} and {period}")
        self.dilation, self.period = dilation, period
        sizes = [i // dilation + 1 for i in range(period, depth + 1, period)]
        self.means = nn.ParameterList(torch.eye(size)[-1] for size in sizes)

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.project(x, mask)
        return x, (x,)

    def read(self, state: State, i: int) -> tuple[tuple[Tensor], State]:
        return (state[0],), state

    def write(self, state: State, y: Tensor, i: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, past, done = state[0] + y, state[1], i + 1
        past = (*past, x)
        if done % self.period == 0:
            x = mix(
                self.means[done // self.period - 1], past[done % self.dilation :: self.dilation]
            )
        return x, past

    def end(self, state: State) -> Tensor:
        return state[0]


class AttentionResiduals(Stream):
    """Each block attends over all earlier outputs   x_i = sum_j softmax_j(w_i . rms(v_j)) v_j   (arXiv 2603.15031).

    v_0 ─┬─ f ─ v_1 ─┬─ f ─ v_2 ─┬─ S ─     v_0 = x, v_j = f_j(x_j)
         └───────────S           S
         └───────────────────────┘

    w = 0 at the start: then each block reads the mean of all before. D parameters for each block. With `span`, the
    outputs of so many blocks are added up as in `Residual`, and the sums attended over: less memory.

    Different from the paper: rms has no scale of its own, which would be one more factor of w; a block is half a
    Transformer layer in both, but here it may be any block.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        span: blocks whose outputs are added up; 1 attends over each.
    """

    def __init__(self, in_dim: int, dim: int, depth: int, span: Positive = 1):
        super().__init__(in_dim, dim, depth)
        if span < 1:
            raise ValueError(f"span must be at least 1; got {span}")
        self.span = span
        # the first block has nothing to choose from; what leaves the stage is chosen last
        self.queries = nn.ParameterList(torch.zeros(dim) for _ in range(depth))

    def begin(self, x: Tensor, mask: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return (self._source(self.project(x, mask)),)

    def _source(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return operand(F.rms_norm(value, value.shape[-1:])), value

    def read(self, state: State, i: int) -> tuple[tuple[Tensor], State]:
        return (state[0][1] if i == 0 else self._attend(state, i - 1),), state

    def _attend(self, sources: Any, i: int) -> Tensor:
        keys, values = zip(*sources, strict=True)
        scores = torch.stack([key @ self.queries[i] for key in keys])  # [sources, B, L]
        return mix(self.hold(scores.softmax(0)[..., None]), values)

    def write(self, state: State, y: Tensor, i: int) -> tuple[tuple[Tensor, Tensor], ...]:
        if i % self.span == 0:
            return (*state, self._source(y))
        return (*state[:-1], self._source(state[-1][1] + y))

    def end(self, state: State) -> Tensor:
        return self._attend(state, self.depth - 1)


class MultiwayDynamicDense(Stream):
    """Each stream that a block reads mixes all earlier outputs by itself, by token   (MUDDFormer, arXiv 2502.12170).

    z_0 ─┬─ S_q,k,v,r ─ f + ─ z_1 ─┬─ S_q,k,v,r ─ f + ─ z_2 ─ S ─
         └─────────────────────────┘

    x_c = sum_j (b_cj + g_cj) z_j for c = query, key, value and the residual stream r of attention, and for r alone
    where a block reads one stream;  g = W_2 gelu(W_1 rms(z_i)),  z_{i+1} = x_r + f(x_q, x_k, x_v). b picks the last
    output and W_2 = 0 at the start: then this is `Residual`. About C (i + 2) (D + C (i + 1)) parameters for block i.

    Different from the paper: it mixes once in front of each layer, four streams for attention, and adds the
    feed-forward half as usual; here each half is a block, so that feed-forward reads a mixture too. The first block
    weighs its only source. Query, key and value share the norm of the branch, where the paper has one for each. The
    paper's norms of the mixed outputs (PrePostDANorm), its wider feed-forward layers in the depth and wider last W_1
    are left out.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
    """

    def wire(self, blocks: Sequence[Block]) -> None:
        ways = [block.inputs + 1 if block.inputs > 1 else 1 for block in blocks] + [1]
        self.dynamic = nn.ModuleList()
        for i, num_ways in enumerate(ways):
            size = num_ways * (i + 1)
            up, down = (
                nn.Linear(self.dim, num_ways * (i + 2), bias=False),
                nn.Linear(num_ways * (i + 2), size),
            )
            nn.init.zeros_(down.weight)
            down.bias.data.copy_(torch.eye(i + 1)[-1].repeat(num_ways))  # b
            self.dynamic.append(nn.Sequential(up, nn.GELU(), down))

    def begin(self, x: Tensor, mask: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        x = self.project(x, mask)
        return (x,), x

    def read(self, state: State, i: int) -> tuple[tuple[Tensor, ...], State]:
        *streams, residual = self._mix(state[0], i)
        return tuple(streams) or (residual,), (state[0], residual)

    def _mix(self, past: tuple[Tensor, ...], i: int) -> Tensor:
        """The streams [C, B, L, D] of block `i`."""
        weights = self.hold(self.dynamic[i](F.rms_norm(past[-1], past[-1].shape[-1:])))
        weights = weights.unflatten(-1, (-1, len(past))).movedim(
            (-2, -1), (1, 0)
        )  # [sources, C, B, L]
        return mix(weights[..., None], past)

    def write(self, state: State, y: Tensor, i: int) -> tuple[tuple[Tensor, ...], Tensor]:
        past, residual = state
        return (*past, residual + y), residual

    def end(self, state: State) -> Tensor:
        return self._mix(state[0], self.depth)[0]
