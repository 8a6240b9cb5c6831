"""Normalization layers that ignore padding.

Each layer normalizes tokens independently, or uses the statistics of real tokens only.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Norm(nn.Module):
    """Base class of norms.

    Args:
        dim: Width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalize `x` [B, L, D]."""
        raise NotImplementedError  # pragma: no cover


NormFactory = Callable[[int], Norm]


class NoNorm(Norm):
    """Identity, used to disable a norm.

    Args:
        dim: Width of the tokens.
    """

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x


class LayerNorm(Norm):
    """Layer normalization of each token (Ba et al. 2016, arXiv 1607.06450).

    Args:
        dim: Width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


class RMSNorm(Norm):
    """Root mean square normalization of each token (Zhang & Sennrich 2019, arXiv 1910.07467).

    Args:
        dim: Width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype))


class BatchNorm(Norm):
    """Batch normalization over the real tokens (Ioffe & Szegedy 2015, arXiv 1502.03167).

    Padding does not affect the statistics. Each process uses the statistics of its own tokens.

    Args:
        dim: Width of the tokens.
        momentum: Weight of the current batch in the running statistics.
        eps: Value added to the variance for numerical stability.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__(dim)
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = self._batch_statistics(x, mask)
        y = (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return y.to(x.dtype)

    def _batch_statistics(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the batch, each [D], and update the running statistics."""
        real = mask[..., None]
        x = x.to(self.mean.dtype).masked_fill(~real, 0.0)
        count = mask.sum()
        mean = x.sum((0, 1)) / count.clamp(min=1)
        variance = ((x - mean).square() * real).sum((0, 1)) / count.clamp(min=1)
        with torch.no_grad():
            momentum = self.momentum * (count > 0).to(mean.dtype)  # skip a batch without tokens
            self.mean.lerp_(mean, momentum)
            self.variance.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
        return mean, variance
