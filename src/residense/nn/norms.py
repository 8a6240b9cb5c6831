"""Norms that cannot leak padding: each looks at one token, or at the real tokens alone.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Share


class Norm(nn.Module):
    """Base of all norms; as it stands it changes nothing.

    Args:
        dim: width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise `x` [B, L, D]."""
        return x


NormFactory = Callable[[int], Norm]


class LayerNorm(Norm):
    """Mean 0 and variance 1 over the width of each token   (Ba et al. 2016, arXiv 1607.06450).

    Args:
        dim: width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


class RMSNorm(Norm):
    """Mean square 1 over the width of each token   (Zhang & Sennrich 2019, arXiv 1910.07467).

    Args:
        dim: width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype))


class BatchNorm(Norm):
    """Mean 0 and variance 1 of each channel over the real tokens of a batch   (Ioffe & Szegedy 2015, arXiv 1502.03167).

    Sentences depend on their batch mates in training, as they do under any batch norm; never on padding. Each process
    has the statistics of its own tokens.

    Args:
        dim: width of the tokens.
        momentum: share of a batch in the running statistics that evaluation uses.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int, momentum: Share = 0.1, eps: Share = 1e-5):
        super().__init__(dim)
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, variance = self._statistics(x, mask) if self.training else (self.mean, self.variance)
        y = (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return y.to(x.dtype)

    def _statistics(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the batch [D]; the running ones move towards them."""
        real = mask[..., None]
        x = x.to(self.mean.dtype).masked_fill(~real, 0.0)
        count = mask.sum()
        mean = x.sum((0, 1)) / count.clamp(min=1)
        variance = ((x - mean).square() * real).sum((0, 1)) / count.clamp(min=1)
        with torch.no_grad():
            momentum = self.momentum * (count > 0).to(
                mean.dtype
            )  # a batch without a token says nothing
            self.mean.lerp_(mean, momentum)
            self.variance.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
        return mean, variance
