"""Convolution over the tokens.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks.base import ACTIVATIONS, Block


class Conv(Block):
    """Convolution over the tokens, with an activation.

    Strubell et al. 2017, arXiv 1702.02098. The paper applies several dilated convolutions
    repeatedly, with shared weights; see `idcnn_ner.yaml`.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output.
        kernel: Kernel size in tokens; odd unless `causal`.
        dilation: Spacing between the tokens of a window.
        activation: `relu`, `gelu`, `none`, or `glu`, which computes twice the width and gates one
            half with the other (arXiv 1612.08083).
        order: Whether the activation is applied `after` the convolution or `before` it
            (pre-activation).
        separable: Whether to use a depthwise separable convolution (arXiv 1610.02357).
        bias: Whether the convolution has a bias; redundant before a batch norm.
        causal: Whether each window ends at its token instead of being centered on it.
        stride: Stride of the convolution.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int = 3,
        dilation: int = 1,
        activation: Literal["relu", "gelu", "glu", "none"] = "relu",
        order: Literal["after", "before"] = "after",
        separable: bool = False,
        bias: bool = True,
        causal: bool = False,
        stride: int = 1,
    ):
        super().__init__(in_dim, out_dim)
        if kernel < 1 or (kernel % 2 == 0 and not causal):
            raise ValueError(f"kernel must be positive, and odd unless causal; got {kernel}")
        if dilation < 1:
            raise ValueError(f"dilation must be at least 1; got {dilation}")
        if activation == "glu" and order == "before":
            raise ValueError("glu gates the output of the convolution: use order: after")
        self.activation = activation
        self.order = order
        reach = dilation * (kernel - 1)
        self.reach_back = reach if causal else 0
        padding = 0 if causal else reach // 2
        width = 2 * out_dim if activation == "glu" else out_dim
        if separable:
            each = nn.Conv1d(in_dim, in_dim, kernel, stride, padding, dilation, in_dim, bias=False)
            self.conv: nn.Module = nn.Sequential(each, nn.Conv1d(in_dim, width, 1, bias=bias))
        else:
            self.conv = nn.Conv1d(in_dim, width, kernel, stride, padding, dilation, bias=bias)
        for conv in self._convolutions():
            nonlinearity = "relu" if conv.groups == 1 else "linear"
            nn.init.kaiming_normal_(conv.weight, nonlinearity=nonlinearity)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        if self.order == "before":
            x = ACTIVATIONS[self.activation](x)
        x = (x * mask[..., None]).mT
        if self.reach_back:
            x = F.pad(x, (self.reach_back, 0))
        y = self.conv(x).mT
        if self.order == "before":
            return y
        return F.glu(y, dim=-1) if self.activation == "glu" else ACTIVATIONS[self.activation](y)

    @torch.no_grad()
    def scale_init(self, factor: float) -> None:
        self._convolutions()[-1].weight.mul_(factor)

    def _convolutions(self) -> list[nn.Conv1d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv1d)]
