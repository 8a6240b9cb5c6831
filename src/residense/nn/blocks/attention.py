"""Self-attention, with positions that know left from right.

Shapes: B batch, L length, D width, H heads, E = D / H; mask [B, L] is True at real tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Positive
from residense.nn.blocks.base import Block


class Attention(Block):
    """Multi-head self-attention   (Vaswani et al. 2017, arXiv 1706.03762).

    Different from the paper: positions are rotary by default, where it adds sinusoids to the embeddings; no dropout of
    attention weights. Different from TENER under `relative`: keys are projected like queries and values.

    Args:
        in_dim: width read.
        out_dim: width written, divisible by twice the number of heads; by their number with `positions: none`.
        heads: number of attention heads.
        positions: `rotary` turns queries and keys by their position (RoPE, arXiv 2104.09864); `relative` adds a score
            for distance and direction and leaves scores unscaled, good for taggers without pre-training (TENER, arXiv
            1911.04474); `none` sees a bag of words.
    """

    inputs = 3

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        heads: Positive = 4,
        positions: Literal["rotary", "relative", "none"] = "rotary",
    ):
        super().__init__(in_dim, out_dim)
        # positions are coded in pairs of channels
        divisor, name = (heads, "heads") if positions == "none" else (2 * heads, "2 * heads")
        if heads < 1 or out_dim % divisor:
            raise ValueError(f"out_dim must be divisible by {name} = {divisor}; got {out_dim}")
        self.heads, self.positions = heads, positions
        self.query, self.key, self.value = (nn.Linear(in_dim, out_dim) for _ in range(3))
        self.out = nn.Linear(out_dim, out_dim)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        if positions == "relative":
            self.content_bias = nn.Parameter(torch.zeros(out_dim))
            self.position_bias = nn.Parameter(torch.zeros(out_dim))

    def forward(
        self, x: Tensor, k: Tensor | None = None, v: Tensor | None = None, *, mask: Tensor
    ) -> Tensor:
        k, v = (x if stream is None else stream for stream in (k, v))
        query, key, value = self.query(x), self.key(k), self.value(v)
        seen, scale = mask[:, None, None], None
        if self.positions == "relative":
            asked = self._split(query + self.position_bias)
            distance = distance_scores(asked).masked_fill(~seen, float("-inf"))
            query, seen, scale = query + self.content_bias, distance, 1.0
        query, key, value = self._split(query), self._split(key), self._split(value)
        if self.positions == "rotary":
            query, key = rotate(query), rotate(key)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, L, E]

    @torch.no_grad()
    def scale_init(self, factor: float) -> None:
        for linear in (self.value, self.out):
            linear.weight.mul_(factor)


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of channels of `x` [..., L, E] by angles that grow with the position (RoPE)."""
    angle = _angles(torch.arange(x.shape[-2], device=x.device), x.shape[-1])
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def distance_scores(query: Tensor) -> Tensor:
    """Scores [B, H, L, L] of queries [B, H, L, E] and the signed distance to each key: q_i . R(i - j)."""
    length, dim = query.shape[-2:]
    place = torch.arange(length, device=query.device)
    angle = _angles(torch.arange(1 - length, length, device=query.device), dim)
    code = torch.cat((angle.sin(), angle.cos()), -1).to(
        query.dtype
    )  # [2L - 1, E]: sines tell left from right
    distance = (place[:, None] - place + length - 1).expand(*query.shape[:-1], -1)
    return (query @ code.mT).gather(-1, distance)


def _angles(position: Tensor, dim: int) -> Tensor:
    frequency = 10_000 ** (
        -torch.arange(0, dim, 2, device=position.device, dtype=torch.float32) / dim
    )
    return position[:, None] * frequency
