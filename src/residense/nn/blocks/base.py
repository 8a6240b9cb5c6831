"""What all blocks share, and blocks made of blocks.

A block is a bare computation `[B, L, in] -> [B, L, out]` that knows nothing of its neighbours. Norms, scales and skips
are not its business: a `Branch` wraps a block, a `Connection` wires it.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens. What a block writes at padded positions is never
read: each block hides padding from real tokens by itself.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.norms import Norm, NormFactory

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
}


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

    def scale_init(self, factor: float) -> None:
        """Scale the initial weights that set the size of what is written, as DeepNorm asks (arXiv 2203.00555).

        Attention and feed-forward blocks then have the paper's Xavier weights times `factor`; others their own.

        Raises:
            ValueError: where that is not defined, as for recurrent blocks.
        """
        raise ValueError(
            f"deepnorm is not defined for {type(self).__name__}: use norm: post, or another block"
        )


BlockFactory = Callable[[int, int], Block]


class Chain(Block):
    """Several blocks in a row as one: what a connection then wires is the row   y = N f_n(... N f_1(x)).

    With convolutions and batch norm this is the branch of a ResNet (arXiv 1512.03385, as `block/resnet.yaml`); without
    norm, the dilated convolutions of an ID-CNN (arXiv 1702.02098).

    Args:
        in_dim: width read.
        out_dim: width written, by each of the blocks.
        blocks: the blocks.
        norm: norm after each of them; null for none.
    """

    def __init__(
        self, in_dim: int, out_dim: int, blocks: list[BlockFactory], norm: NormFactory | None = None
    ):
        super().__init__(in_dim, out_dim)
        if not blocks:
            raise ValueError("a chain needs at least one block")
        widths = [in_dim, *[out_dim] * (len(blocks) - 1)]
        self.blocks = nn.ModuleList(
            block(width, out_dim) for block, width in zip(blocks, widths, strict=True)
        )
        self.norms = nn.ModuleList((norm or Norm)(out_dim) for _ in blocks)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = norm(block(x, mask=mask), mask)
        return x

    def scale_init(self, factor: float) -> None:
        for block in self.blocks:
            block.scale_init(factor)  # type: ignore[operator]
