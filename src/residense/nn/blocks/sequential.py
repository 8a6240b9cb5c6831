"""A block composed of several blocks.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import Literal

from torch import Tensor, nn

from residense.nn.blocks.base import ACTIVATIONS, Block, BlockFactory
from residense.nn.norms import NoNorm, NormFactory


class Sequential(Block):
    """Sequence of blocks that a connection treats as one: y = s norm f_n(... s norm f_1(x)).

    With convolutions and batch norm, this is the residual branch of a ResNet (arXiv 1512.03385, see
    `block/resnet.yaml`).

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output of each block.
        blocks: Blocks in the order in which they run.
        norm: Norm after each block; null for no norm.
        activation: Activation s after each norm.
        stride: Stride of the first block.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        blocks: list[BlockFactory],
        norm: NormFactory | None = None,
        activation: Literal["none", "relu", "gelu"] = "none",
        stride: int = 1,
    ):
        super().__init__(in_dim, out_dim)
        if not blocks:
            raise ValueError("Sequential needs at least one block")
        self.stride = stride
        self.activation = ACTIVATIONS[activation]
        options = {"stride": stride} if stride > 1 else {}
        self.blocks = nn.ModuleList([blocks[0](in_dim, out_dim, **options)])
        self.blocks.extend(block(out_dim, out_dim) for block in blocks[1:])
        self.norms = nn.ModuleList((norm or NoNorm)(out_dim) for _ in blocks)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        for i, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            x = block(x, mask=mask)
            if i == 0:
                mask = mask[:, :: self.stride]
            x = self.activation(norm(x, mask))
        return x

    def scale_init(self, factor: float) -> None:
        for block in self.blocks:
            block.scale_init(factor)  # type: ignore[operator]
