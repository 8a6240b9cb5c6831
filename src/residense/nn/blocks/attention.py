"""Self-attention with relative positions.

Shapes: B batch, L length, D width, H heads, E = D / H; mask [B, L] is True at real tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks.base import Block


class Attention(Block):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv 1706.03762).

    Differences from the papers: positions are rotary by default instead of sinusoids added to the
    embeddings; with `relative`, keys are projected like queries and values, unlike in TENER.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output; divisible by `2 * heads`, or by `heads` with `positions:
            none`.
        heads: Number of attention heads.
        positions: `rotary` rotates queries and keys by their position (RoPE, arXiv 2104.09864);
            `relative` adds a score for distance and direction to unscaled attention scores, which
            suits taggers without pretraining (TENER, arXiv 1911.04474); `none` ignores the order.
        dropout: Probability of zeroing an attention weight.
        causal: Whether a token attends only to itself and to earlier tokens.
        window: Maximum distance between a token and those it attends to; null for no limit (arXiv
            2004.05150).
    """

    inputs = 3

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        heads: int = 4,
        positions: Literal["rotary", "relative", "none"] = "rotary",
        dropout: float = 0.0,
        causal: bool = False,
        window: int | None = None,
    ):
        super().__init__(in_dim, out_dim)
        divisor = heads if positions == "none" else 2 * heads  # positions rotate pairs of channels
        if heads < 1 or out_dim % divisor:
            name = "heads" if positions == "none" else "2 * heads"
            raise ValueError(f"out_dim must be divisible by {name} = {divisor}; got {out_dim}")
        if window is not None and window < 0:
            raise ValueError(f"window must not be negative; got {window}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        self.heads = heads
        self.positions = positions
        self.dropout = dropout
        self.causal = causal
        self.window = window
        self.query = nn.Linear(in_dim, out_dim)
        self.key = nn.Linear(in_dim, out_dim)
        self.value = nn.Linear(in_dim, out_dim)
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
        query = self.query(x)
        key = self._split(self.key(x if k is None else k))
        value = self._split(self.value(x if v is None else v))
        visible = self._visible(mask)
        scale = None
        if self.positions == "relative":
            distance = distance_scores(self._split(query + self.position_bias))
            visible = distance.masked_fill(~visible, float("-inf"))
            query = query + self.content_bias
            scale = 1.0
        query = self._split(query)
        if self.positions == "rotary":
            query = rotate(query)
            key = rotate(key)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, visible, dropout, scale=scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, L, E]

    def _visible(self, mask: Tensor) -> Tensor:
        """Return the positions that each token can attend to, [B, 1, L or 1, L]."""
        visible = mask[:, None, None]
        if not self.causal and self.window is None:
            return visible
        place = torch.arange(mask.shape[1], device=mask.device)
        distance = place[:, None] - place
        near = distance.abs() <= (mask.shape[1] if self.window is None else self.window)
        if self.causal:
            near = near & (distance >= 0)
        return (visible & near) | (distance == 0)  # a row without visible positions would be NaN

    @torch.no_grad()
    def scale_init(self, factor: float) -> None:
        for linear in (self.value, self.out):
            linear.weight.mul_(factor)


def rotate(x: Tensor) -> Tensor:
    """Rotate pairs of channels of `x` [..., L, E] by angles that grow with the position."""
    angle = _angles(torch.arange(x.shape[-2], device=x.device), x.shape[-1])
    cos = angle.cos().to(x.dtype)
    sin = angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def distance_scores(query: Tensor) -> Tensor:
    """Score queries [B, H, L, E] against the signed distance to each key, q_i . R(i - j): [B, H, L, L]."""
    length, dim = query.shape[-2:]
    place = torch.arange(length, device=query.device)
    angle = _angles(torch.arange(1 - length, length, device=query.device), dim)
    code = torch.cat((angle.sin(), angle.cos()), -1).to(query.dtype)  # [2L - 1, E]
    distance = (place[:, None] - place + length - 1).expand(*query.shape[:-1], -1)
    return (query @ code.mT).gather(-1, distance)


def _angles(position: Tensor, dim: int) -> Tensor:
    channel = torch.arange(0, dim, 2, device=position.device, dtype=torch.float32)
    return position[:, None] * 10_000 ** (-channel / dim)
