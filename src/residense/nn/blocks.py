"""Blocks: bare computations `[B, L, in] -> [B, L, out]` that know nothing of their neighbours.

Norms, scales and skips are not here: a `Branch` wraps a block, a `Connection` wires it.

Shapes: B batch, L length, D width, H heads; mask [B, L] is True at real tokens. What a block writes at padded
positions is never read: each block hides padding from real tokens by itself.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


class Block(nn.Module):
    """Base of all blocks.

    Attributes:
        inputs: how many streams `forward` can read; a block that reads several takes the first for those missing.
    """

    inputs = 1

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        """Map `x` [B, L, in_dim] to [B, L, out_dim]."""
        raise NotImplementedError  # pragma: no cover


class Conv(Block):
    """Convolution over the tokens, then an activation   (Strubell et al. 2017, arXiv 1702.02098).

    Args:
        in_dim: width read.
        out_dim: width written.
        kernel: tokens seen at once, odd.
        dilation: distance between the tokens seen.
        activation: `relu`, `gelu`, or `glu`, which computes twice the width and gates one half by the other.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int = 3,
        dilation: int = 1,
        activation: Literal["relu", "gelu", "glu"] = "relu",
    ):
        super().__init__(in_dim, out_dim)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd so that each token is the centre of its window; got {kernel}")
        self.activation = activation
        width = 2 * out_dim if activation == "glu" else out_dim
        self.conv = nn.Conv1d(in_dim, width, kernel, dilation=dilation, padding=dilation * (kernel // 2))
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        y = self.conv((x * mask[..., None]).mT).mT
        return F.glu(y, dim=-1) if self.activation == "glu" else ACTIVATIONS[self.activation](y)


class LSTM(Block):
    """Bidirectional LSTM, one layer, half of the width in each direction   (Graves & Schmidhuber 2005).

    Both directions run on padded batches: the backward one reads each sentence reversed in place, so padding comes
    after it and is never seen. The result is that of a packed sequence, and faster.

    Args:
        in_dim: width read.
        out_dim: width written, even.
    """

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__(in_dim, out_dim)
        if out_dim % 2:
            raise ValueError(f"a bidirectional LSTM writes half of its width in each direction; {out_dim} is odd")
        self.ahead = nn.LSTM(in_dim, out_dim // 2, batch_first=True)
        self.back = nn.LSTM(in_dim, out_dim // 2, batch_first=True)
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                for gate in parameter.data.chunk(4):
                    nn.init.orthogonal_(gate)
            elif "bias_ih" in name:  # an open forget gate lets gradients pass from the first step
                parameter.data.chunk(4)[1].fill_(1.0)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        step = torch.arange(x.shape[1], device=x.device)
        mirror = torch.where(mask, mask.sum(1, keepdim=True) - 1 - step, step)[..., None]
        back, _ = self.back(x.gather(1, mirror.expand_as(x)))
        return torch.cat((self.ahead(x)[0], back.gather(1, mirror.expand_as(back))), -1)


class Attention(Block):
    """Multi-head self-attention with rotary positions   (Vaswani et al. 2017; Su et al. 2021, arXiv 2104.09864).

    Args:
        in_dim: width read.
        out_dim: width written, divisible by twice the number of heads.
        heads: number of attention heads.
    """

    inputs = 3

    def __init__(self, in_dim: int, out_dim: int, heads: int = 4):
        super().__init__(in_dim, out_dim)
        if out_dim % (2 * heads):
            raise ValueError(f"out_dim must be divisible by 2 * heads = {2 * heads}; got {out_dim}")
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(in_dim, out_dim) for _ in range(3))
        self.out = nn.Linear(out_dim, out_dim)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, k: Tensor | None = None, v: Tensor | None = None, *, mask: Tensor) -> Tensor:
        k, v = (x if stream is None else stream for stream in (k, v))
        split = (*x.shape[:2], self.heads, -1)
        query = rotate(self.query(x).view(split).transpose(1, 2))  # [B, H, L, D/H]
        key = rotate(self.key(k).view(split).transpose(1, 2))
        value = self.value(v).view(split).transpose(1, 2)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return self.out(y.transpose(1, 2).flatten(2))


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of channels of `x` [..., L, D] by angles that grow with the position (RoPE)."""
    length, dim = x.shape[-2:]
    frequency = 10_000 ** (-torch.arange(0, dim, 2, device=x.device, dtype=torch.float32) / dim)
    angle = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class FeedForward(Block):
    """Position-wise two-layer network   (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        in_dim: width read.
        out_dim: width written.
        expansion: hidden width, in multiples of `out_dim`.
        activation: `relu` or `gelu`.
    """

    def __init__(self, in_dim: int, out_dim: int, expansion: int = 4, activation: Literal["relu", "gelu"] = "gelu"):
        super().__init__(in_dim, out_dim)
        self.activation = ACTIVATIONS[activation]
        self.up, self.down = nn.Linear(in_dim, expansion * out_dim), nn.Linear(expansion * out_dim, out_dim)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))
