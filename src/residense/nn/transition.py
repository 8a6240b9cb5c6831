"""Transitions between stages.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.norms import LayerNorm, NormFactory


class Transition(nn.Module):
    """Base class of transitions.

    Position t of the output is computed from position t * stride of the input and its neighbors.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output.
        stride: Stride between output positions.
    """

    def __init__(self, in_dim: int, out_dim: int, stride: int = 1):
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be at least 1; got {stride}")
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.stride = stride

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` [B, L, in_dim] to [B, ceil(L / stride), out_dim], and its mask accordingly."""
        raise NotImplementedError  # pragma: no cover


TransitionFactory = Callable[[int, NormFactory], Transition]


class DenseTransition(Transition):
    """Norm, ReLU, a linear map that compresses the width, and pooling.

    Huang et al. 2017 (DenseNet-BC), arXiv 1608.06993. Differences from the paper: the linear map
    has a bias, and pooling is off by default. Pooling is for classification only, since a tagger
    needs every token.

    Args:
        in_dim: Width of the input.
        encoder_norm: Default norm of the encoder.
        compression: Output width as a fraction of the input width.
        pool: `average` or `max` over the real tokens, `conv` for a strided convolution of width 3,
            or `none`.
        stride: Stride of the pooling.
        norm: Norm before the linear map; null for the norm of the encoder.
    """

    def __init__(
        self,
        in_dim: int,
        encoder_norm: NormFactory = LayerNorm,
        compression: float = 0.5,
        pool: Literal["none", "average", "max", "conv"] = "none",
        stride: int = 2,
        norm: NormFactory | None = None,
    ):
        if not 0 < compression <= 1:
            raise ValueError(f"compression must be above 0 and at most 1; got {compression}")
        out_dim = max(1, int(in_dim * compression + 1e-6))
        super().__init__(in_dim, out_dim, 1 if pool == "none" else stride)
        self.pool = pool
        self.norm = (norm or encoder_norm)(in_dim)
        if pool == "conv":
            self.squeeze: nn.Module = nn.Conv1d(in_dim, out_dim, 3, stride, padding=1)
        else:
            self.squeeze = nn.Linear(in_dim, out_dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x, mask).relu()
        if self.pool == "none":
            return self.squeeze(x), mask
        if self.pool == "conv":
            return self.squeeze((x * mask[..., None]).mT).mT, mask[:, :: self.stride]
        return pool(self.squeeze(x), mask, self.pool, self.stride, self.stride, before=0)


class PoolTransition(Transition):
    """Pooling without a linear map, as in DPCNN and VDCNN (arXiv 1606.01781).

    Args:
        in_dim: Width of the input.
        encoder_norm: Default norm of the encoder; unused.
        pool: `max` or `average` over the real tokens.
        kernel: Window size in tokens; a window of even size has one more token after its position.
        stride: Stride between windows.
    """

    def __init__(
        self,
        in_dim: int,
        encoder_norm: NormFactory = LayerNorm,
        pool: Literal["average", "max"] = "max",
        kernel: int = 3,
        stride: int = 2,
    ):
        super().__init__(in_dim, in_dim, stride)
        if kernel < 1:
            raise ValueError(f"kernel must be at least 1; got {kernel}")
        self.pool = pool
        self.kernel = kernel

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        before = (self.kernel - 1) // 2
        return pool(x, mask, self.pool, self.kernel, self.stride, before)


def pool(
    x: Tensor, mask: Tensor, kind: str, kernel: int, stride: int, before: int
) -> tuple[Tensor, Tensor]:
    """Pool the real tokens in windows at every `stride`-th position.

    Args:
        x: Tokens [B, L, D].
        mask: Mask [B, L].
        kind: `max` or `average`.
        kernel: Window size in tokens.
        stride: Stride between windows.
        before: Number of tokens of a window before its position.

    Returns:
        The pooled tokens [B, ceil(L / stride), D], 0 for windows without real tokens, and their
        mask.
    """
    real = _windows(mask, kernel, stride, before)[..., None]  # [B, L / stride, kernel, 1]
    windows = _windows(x.mT, kernel, stride, before).movedim(1, -1)  # [B, L / stride, kernel, D]
    if kind == "max":
        pooled = windows.masked_fill(~real, float("-inf")).amax(2)
        pooled = pooled.masked_fill(~real.any(2), 0.0)
    else:
        pooled = (windows * real).sum(2) / real.sum(2).clamp(min=1)
    return pooled, mask[:, ::stride]


def _windows(x: Tensor, kernel: int, stride: int, before: int) -> Tensor:
    """Cut `x` [..., L] into windows [..., ceil(L / stride), kernel], padded with zeros."""
    length = x.shape[-1]
    padded = F.pad(x, (before, kernel - 1 - before))
    # slices, since an export cannot reshape by a remainder
    return torch.stack([padded[..., i : i + length : stride] for i in range(kernel)], -1)
