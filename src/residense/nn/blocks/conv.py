"""Convolution over the tokens.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Positive
from residense.nn.blocks.base import ACTIVATIONS, Block


class Conv(Block):
    """Convolution over the tokens and an activation   (Strubell et al. 2017, arXiv 1702.02098).

    The paper iterates several of these, dilated, with shared weights: see `idcnn_ner.yaml` for how that differs.

    Args:
        in_dim: width read.
        out_dim: width written.
        kernel: tokens seen at once, odd.
        dilation: distance between the tokens seen.
        activation: `relu`, `gelu`, `none`, or `glu`, which computes twice the width and gates one half by the other.
        order: whether the activation stands `after` the convolution or `before` it (as under pre-activation).
        separable: a convolution of each channel by itself, then a map of the width (arXiv 1610.02357): fewer weights.
        bias: whether the convolution adds a bias; of no use in front of a batch norm.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: Positive = 3,
        dilation: Positive = 1,
        activation: Literal["relu", "gelu", "glu", "none"] = "relu",
        order: Literal["after", "before"] = "after",
        separable: bool = False,
        bias: bool = True,
    ):
        super().__init__(in_dim, out_dim)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"kernel must be odd so that each token is the centre of its window; got {kernel}"
            )
        if dilation < 1:
            raise ValueError(f"dilation must be at least 1; got {dilation}")
        if activation == "glu" and order == "before":
            raise ValueError("glu gates what the convolution computes: it stands after it")
        self.activation, self.order = activation, order
        width, padding = (2 if activation == "glu" else 1) * out_dim, dilation * (kernel // 2)
        if separable:
            each = nn.Conv1d(
                in_dim,
                in_dim,
                kernel,
                dilation=dilation,
                padding=padding,
                groups=in_dim,
                bias=False,
            )
            self.conv: nn.Module = nn.Sequential(each, nn.Conv1d(in_dim, width, 1, bias=bias))
        else:
            self.conv = nn.Conv1d(
                in_dim, width, kernel, dilation=dilation, padding=padding, bias=bias
            )
        for conv in self._convolutions():
            nn.init.kaiming_normal_(
                conv.weight, nonlinearity="relu" if conv.groups == 1 else "linear"
            )

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        if self.order == "before":
            x = ACTIVATIONS[self.activation](x)
        y = self.conv((x * mask[..., None]).mT).mT
        if self.order == "before":
            return y
        return F.glu(y, dim=-1) if self.activation == "glu" else ACTIVATIONS[self.activation](y)

    @torch.no_grad()
    def scale_init(self, factor: float) -> None:
        self._convolutions()[-1].weight.mul_(factor)

    def _convolutions(self) -> list[nn.Conv1d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv1d)]
