"""Connections that concatenate block outputs.

Memory is linear in the depth. A linear map of a concatenation is the sum of linear maps of its
pieces, so a read does not concatenate. Adjacent pieces of equal width are merged like the carries
of a binary counter: each feature is copied at most log2(depth) times, and a read needs about as
many matrix products.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.connections.base import Connection, Layout, State, autocast
from residense.nn.norms import NormFactory

Pieces = tuple[Tensor, ...]


def append(pieces: Pieces, new: Tensor) -> Pieces:
    """Append `new` [B, L, width] to the pieces, merging adjacent pieces of equal width."""
    new = autocast(new)
    while pieces and pieces[-1].shape[-1] == new.shape[-1]:
        new = torch.cat((pieces[-1], new), -1)
        pieces = pieces[:-1]
    return (*pieces, new)


def linear_of(pieces: Pieces, linear: nn.Module) -> Tensor:
    """Apply `linear` to the concatenation of the pieces."""
    weight = linear.get_parameter("weight")
    weights = weight.split([piece.shape[-1] for piece in pieces], 1)
    y = F.linear(pieces[0], weights[0], linear.get_parameter("bias"))
    for piece, weight in zip(pieces[1:], weights[1:], strict=True):
        y = y + F.linear(piece, weight)
    return y


class Dense(Connection):
    """Concatenate all earlier outputs; each block adds `growth_rate` features.

    x ─┬─ f ─┬─ f ─┬─ f ─┬─     x_i = f_i(W_i [r_0, r_1, ..., r_{i-1}]),  r_j = relu(norm_j(x_j))
       ├─────┴─────┤     │
       └───────────┴─────┘

    Huang et al. 2017, arXiv 1608.06993. The output is the concatenation of the input and all
    outputs, [B, L, in_dim + depth * growth_rate]; a transition compresses it between stages. Memory
    grows linearly in the depth. W_i has (in_dim + i growth_rate) * bottleneck * growth_rate weights.

    This is the first half of a DenseNet-BC layer (norm, ReLU, 1x1 convolution). The second half
    (norm, ReLU, convolution of width 3) is `Conv` with `order: before` in a `Branch` with `norm:
    pre`, as in `densenet_cls.yaml`. Differences from the paper: all readers of an output share its
    norm (individual scales are part of W); W has a bias.

    Args:
        layout: Dimensions of the stage; `dim` is unused.
        growth_rate: Number of features that each block adds.
        bottleneck: Input width of each block as a multiple of the growth rate; 0 feeds blocks the
            concatenation itself, as in densely connected BiLSTMs (arXiv 1802.00889).
        norm: Norm before the bottleneck; null for the norm of the encoder.
    """

    resizes = True

    def __init__(
        self,
        layout: Layout,
        growth_rate: int = 32,
        bottleneck: int = 4,
        norm: NormFactory | None = None,
    ):
        super().__init__(layout)
        if growth_rate < 1 or bottleneck < 0:
            raise ValueError(
                f"growth_rate must be at least 1 and bottleneck at least 0; got {growth_rate} and "
                f"{bottleneck}"
            )
        self.growth_rate = growth_rate
        self.narrow = bottleneck * growth_rate
        sources = [growth_rate if i else self.in_dim for i in range(self.depth)]
        self.out_dim = self._concatenated(self.depth)
        self.norms = nn.ModuleList()
        self.squeeze = nn.ModuleList()
        if bottleneck:
            self.norms.extend((norm or layout.norm)(width) for width in sources)
            self.squeeze.extend(
                nn.Linear(self._concatenated(i), self.narrow) for i in range(self.depth)
            )

    def _concatenated(self, i: int) -> int:
        """Return the width of all features before block `i`."""
        return self.in_dim + i * self.growth_rate

    def widths(self, i: int) -> tuple[int, int]:
        return self.narrow or self._concatenated(i), self.growth_rate

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Pieces, Pieces]:
        return (x,), self._rectify((), x, 0, mask)

    def _rectify(self, rectified: Pieces, x: Tensor, i: int, mask: Tensor) -> Pieces:
        """Append source `i` if a later block reads it."""
        if i >= len(self.norms):
            return rectified
        return append(rectified, self.norms[i](x, mask).relu())

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        features, rectified = state
        if self.narrow:
            return (linear_of(rectified, self.squeeze[i]),), state
        return (torch.cat(features, -1),), state

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> tuple[Pieces, Pieces]:
        features, rectified = state
        return (*features, y), self._rectify(rectified, y, i + 1, mask)

    def end(self, state: State) -> Tensor:
        features, _ = state
        return torch.cat(features, -1)


class DualPath(Connection):
    """Add one part of each output to a residual stream and append the other to a dense path.

    x ─┬─ f ═╤═ + ─┬─ f ═╤═ + ─     x_i = x_{i-1} + y_i,  r(x) = relu(norm(x))
       └─────│──┘──│─────│──┘       [y_i, z_i] = f_i(W_i [r(x_{i-1}), r(z_1), ..., r(z_{i-1})])
             └─────┴─────┴──────

    Chen et al. 2017, arXiv 1707.01629. The output is [x_n, z_1, ..., z_n]. W_i has (dim + i
    growth_rate) * dim weights. Differences from the paper: f is any block instead of a grouped
    convolution bottleneck; the dense path starts empty instead of with a projection of the input to
    2 * growth_rate features; all readers share the norm of z_j; the last block is not followed by a
    norm and ReLU.

    Args:
        layout: Dimensions of the stage.
        growth_rate: Number of features that each block appends.
        norm: Norm before each W; null for the norm of the encoder.
    """

    def __init__(self, layout: Layout, growth_rate: int = 16, norm: NormFactory | None = None):
        super().__init__(layout)
        if growth_rate < 1:
            raise ValueError(f"growth_rate must be at least 1; got {growth_rate}")
        make_norm = norm or layout.norm
        self.growth_rate = growth_rate
        self.out_dim = self.dim + self.depth * growth_rate
        self.stream_norms = nn.ModuleList(make_norm(self.dim) for _ in range(self.depth))
        self.norms = nn.ModuleList(make_norm(growth_rate) for _ in range(self.depth - 1))
        self.squeeze = nn.ModuleList(
            nn.Linear(self.dim + i * growth_rate, self.dim) for i in range(self.depth)
        )

    def widths(self, i: int) -> tuple[int, int]:
        return self.dim, self.dim + self.growth_rate

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Pieces, Pieces]:
        return x, (), ()

    def read(self, state: State, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        x, _, rectified = state
        stream = self.stream_norms[i](x, mask).relu()
        return (linear_of((stream, *rectified), self.squeeze[i]),), state

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> tuple[Tensor, Pieces, Pieces]:
        x, features, rectified = state
        added, new = y.split((self.dim, self.growth_rate), -1)
        if i < len(self.norms):
            rectified = append(rectified, self.norms[i](new, mask).relu())
        return x + added, (*features, new), rectified

    def end(self, state: State) -> Tensor:
        x, features, _ = state
        return torch.cat((x, *features), -1)
