"""The interface of blocks.

A block maps `[B, L, in_dim]` to `[B, L, out_dim]`. The `Branch` around it adds norms, dropout and
scales, and the `Connection` between blocks adds shortcuts.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens. A block must not let padding
influence real tokens. Its output at padded positions is ignored.
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

    A block that can shorten a sequence takes `stride` as a keyword argument. It then computes
    position t of the output from position t * stride of the input and its neighbors, and maps [B,
    L, in_dim] to [B, ceil(L / stride), out_dim].

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output.

    Attributes:
        inputs: Number of input streams that `forward` accepts.
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
        """Scale the initial weights that determine the scale of the output, as DeepNorm requires.

        Raises:
            ValueError: The block does not support it, such as a recurrent block.
        """
        kind = type(self).__name__
        raise ValueError(f"DeepNorm is not defined for {kind}: use PostNorm, or another block")


BlockFactory = Callable[[int, int], Block]


class Linear(Block):
    """Linear map of each token.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output.
        bias: Whether to add a bias.
    """

    def __init__(self, in_dim: int, out_dim: int, bias: bool = False):
        super().__init__(in_dim, out_dim)
        self.linear = nn.Linear(in_dim, out_dim, bias)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return self.linear(x)
