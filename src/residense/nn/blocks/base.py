"""The interface of blocks.

A block is a bare computation `[B, L, in] -> [B, L, out]`. Norms, scales and skips are up to the
`Branch` around it and the `Connection` between blocks.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens. What a block writes at padded
positions is never read: each block hides padding from real tokens by itself.
"""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
}


class Block(nn.Module):
    """Base class of all blocks.

    A block that can shorten a sequence takes `stride` as a keyword argument: it then turns position
    t * stride and its neighbors into position t, [B, L, in] into [B, ceil(L / stride), out].

    Args:
        in_dim: width of the input.
        out_dim: width of the output.

    Attributes:
        inputs: number of streams that `forward` can read.
    """

    inputs: ClassVar[int] = 1

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.in_dim = in_dim
        self.out_dim = out_dim

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        """Map `x` [B, L, in_dim] to [B, L, out_dim]."""
        raise NotImplementedError  # pragma: no cover

    def scale_init(self, factor: float) -> None:
        """Scale the initial weights that set the size of the output, as DeepNorm asks.

        Raises:
            ValueError: this is not defined for the block, such as a recurrent one.
        """
        kind = type(self).__name__
        raise ValueError(f"DeepNorm is not defined for {kind}: use PostNorm, or another block")


BlockFactory = Callable[[int, int], Block]


class Linear(Block):
    """A linear map of each token.

    Args:
        in_dim: width of the input.
        out_dim: width of the output.
        bias: whether to add a bias.
    """

    def __init__(self, in_dim: int, out_dim: int, bias: bool = False):
        super().__init__(in_dim, out_dim)
        self.linear = nn.Linear(in_dim, out_dim, bias)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return self.linear(x)
