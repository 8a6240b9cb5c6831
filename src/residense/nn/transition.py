"""What joins two stages.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Positive, Share
from residense.nn.norms import LayerNorm, NormFactory


class Transition(nn.Module):
    """Joins two stages: norm, relu, and a linear map that keeps a share of the width   (DenseNet-BC, arXiv 1608.06993).

    With `pool`, `stride` tokens become one, and the mask goes along: for classification, as a tag belongs to a token.
    Different from the paper: layer norm unless `norm: BatchNorm` is given, a bias, and no pooling by default.

    Args:
        in_dim: width of what leaves the stage before.
        compression: share of the width that is kept.
        pool: `average` or `max` of the real tokens, a strided `conv`olution of three tokens, or `none`.
        stride: tokens that become one.
        norm: norm in front.
    """

    def __init__(
        self,
        in_dim: int,
        compression: Share = 0.5,
        pool: Literal["none", "average", "max", "conv"] = "none",
        stride: Positive = 2,
        norm: NormFactory = LayerNorm,
    ):
        super().__init__()
        if not 0 < compression <= 1 or stride < 1:
            raise ValueError(
                f"compression must be above 0 and at most 1, stride at least 1; got {compression}, {stride}"
            )
        self.out_dim, self.pool = max(1, int(in_dim * compression + 1e-6)), pool
        self.stride = 1 if pool == "none" else stride
        self.norm = norm(in_dim)
        if pool == "conv":
            self.squeeze: nn.Module = nn.Conv1d(in_dim, self.out_dim, 3, stride, padding=1)
        else:
            self.squeeze = nn.Linear(in_dim, self.out_dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` [B, L, in_dim] to [B, ceil(L / stride), out_dim], and the mask along with it."""
        x = self.norm(x, mask).relu()
        if self.pool == "none":
            return self.squeeze(x), mask
        if self.pool == "conv":
            return self.squeeze((x * mask[..., None]).mT).mT, self._windows(mask).any(-1)
        real = self._windows(mask)[..., None]
        windows = self._windows(self.squeeze(x).mT).movedim(1, -1)  # [B, L / stride, stride, D]
        if self.pool == "max":
            pooled = windows.masked_fill(~real, float("-inf")).amax(2)
            return pooled.masked_fill(~real.any(2), 0.0), real.squeeze(-1).any(-1)
        pooled = (windows * real).sum(2) / real.sum(2).clamp(min=1)
        return pooled, real.squeeze(-1).any(-1)

    def _windows(self, x: Tensor) -> Tensor:
        """`x` [..., L] cut into [..., ceil(L / stride), stride]; the last one is filled with zeros."""
        length, padded = (
            x.shape[-1],
            F.pad(x, (0, self.stride - 1)),
        )  # slices, as exports cannot reshape by a remainder
        return torch.stack(
            [padded[..., i : i + length : self.stride] for i in range(self.stride)], -1
        )


TransitionFactory = Callable[[int], Transition]
