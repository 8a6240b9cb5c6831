"""Connections that keep the outputs of blocks side by side.

Nothing is copied or stored quadratically in the depth: a linear map of a concatenation is the sum of linear maps of its
pieces, so a block's read needs no concatenation, and pieces of one width are merged like the digits of a binary counter
carry: 1, 2, 1+2, 4, 1+4, ... features are copied log2(depth) times at most, and a read has as many products at most.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Count, Positive
from residense.nn.connections.base import Connection, State, Stream, operand
from residense.nn.norms import LayerNorm, NormFactory

Pieces = tuple[Tensor, ...]


def append(pieces: Pieces, new: Tensor) -> Pieces:
    """Put `new` [B, L, any] behind the pieces; neighbours of one width become one piece."""
    new = operand(new)
    while pieces and pieces[-1].shape[-1] == new.shape[-1]:
        pieces, new = pieces[:-1], torch.cat((pieces[-1], new), -1)
    return (*pieces, new)


def linear_of(pieces: Pieces, linear: nn.Linear) -> Tensor:
    """`linear` of the pieces side by side."""
    weights = linear.weight.split([piece.shape[-1] for piece in pieces], 1)
    y = F.linear(pieces[0], weights[0], linear.bias)
    for piece, weight in zip(pieces[1:], weights[1:], strict=True):
        y = y + F.linear(piece, weight)
    return y


class Dense(Connection):
    """Each block reads all earlier outputs and adds `growth_rate` features   (Huang et al. 2017, arXiv 1608.06993).

    x ─┬─ f ─┬─ f ─┬─ f ─┬─     x_i = f_i(W_i [r_0, r_1, ..., r_{i-1}]),  r_j = relu(norm_j(x_j))
       ├─────┴─────┤     │
       └───────────┴─────┘

    The output is everything, [B, L, in_dim + depth * growth_rate]; a `Transition` compresses it between stages. Memory
    grows linearly in the depth. W_i has (in_dim + i growth_rate) * bottleneck * growth_rate weights.

    This is the first half of a DenseNet-BC layer, norm-ReLU-1x1. The second half, norm-ReLU-3, is `Conv` with
    `order: before` in a `Branch` with `norm: pre`, as in `densenet_cls.yaml`; with `norm: none` and `order: after`
    nothing would stand between the two convolutions, and they would be one. Different from the paper: each output is
    normalised and rectified once for all its readers, which share its scale and shift (their own scales are in W); the
    norm is a layer norm of each output by itself unless `norm: BatchNorm` is given; W has a bias; there is no
    convolution in front of the first block.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage; not used, the growth rate sets all widths.
        depth: number of blocks.
        growth_rate: features that each block adds.
        bottleneck: width that each block reads, in multiples of the growth rate; 0 lets blocks read the bare
            concatenation, as in densely connected BiLSTMs (arXiv 1802.00889): good where it is shallow. In that paper
            only the last layer is read, here all are.
        norm: norm of the outputs in front of the bottleneck.
    """

    concatenates = True

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        growth_rate: Positive = 32,
        bottleneck: Count = 4,
        norm: NormFactory = LayerNorm,
    ):
        super().__init__(in_dim, dim, depth)
        if growth_rate < 1 or bottleneck < 0:
            raise ValueError(
                f"growth_rate must be at least 1 and bottleneck 0; got {growth_rate} and {bottleneck}"
            )
        self.growth_rate, self.narrow = growth_rate, bottleneck * growth_rate
        self.out_dim = in_dim + depth * growth_rate
        read = range(depth if bottleneck else 0)
        self.norms = nn.ModuleList(norm(growth_rate if i else in_dim) for i in read)
        self.squeeze = nn.ModuleList(nn.Linear(in_dim + i * growth_rate, self.narrow) for i in read)

    def widths(self, i: int) -> tuple[int, int]:
        return self.narrow or self.in_dim + i * self.growth_rate, self.growth_rate

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Pieces, Pieces]:
        return mask, (x,), self._rectify((), x, mask, 0)

    def _rectify(self, pieces: Pieces, x: Tensor, mask: Tensor, i: int) -> Pieces:
        """Pieces with source `i`, if a block is still to read it."""
        return append(pieces, self.norms[i](x, mask).relu()) if i < len(self.norms) else pieces

    def read(self, state: State, i: int) -> tuple[tuple[Tensor], State]:
        _, features, pieces = state
        return (
            linear_of(pieces, self.squeeze[i]) if self.narrow else torch.cat(features, -1),
        ), state  # type: ignore

    def write(self, state: State, y: Tensor, i: int) -> tuple[Tensor, Pieces, Pieces]:
        mask, features, pieces = state
        return mask, (*features, y), self._rectify(pieces, y, mask, i + 1)

    def end(self, state: State) -> Tensor:
        return torch.cat(state[1], -1)


class DualPath(Stream):
    """A residual stream and a dense path beside it: one part of a block's output is added, the other appended.

    x ─┬─ f ═╤═ + ─┬─ f ═╤═ + ─     x_i = x_{i-1} + y_i,  f_i(W_i [r(x_{i-1}), r(z_1), ..., r(z_{i-1})]) = [y_i, z_i]
       └─────│──┘──│─────│──┘
             └─────┴─────┴──────     r(x) = relu(norm(x))

    Chen et al. 2017, arXiv 1707.01629. The output is [x_n, z_1, ..., z_n]. W_i has (dim + i growth_rate) * dim weights.
    Different from the paper: f is any block instead of a grouped bottleneck of convolutions; the dense path begins
    empty, where the paper projects the input to 2 * growth_rate features; norms are layer norms unless
    `norm: BatchNorm` is given; readers share the norm of each z_j; no norm and ReLU follow the last block.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the residual stream.
        depth: number of blocks.
        growth_rate: features that each block appends.
        norm: norm in front of each W.
    """

    concatenates = True

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        growth_rate: Positive = 16,
        norm: NormFactory = LayerNorm,
    ):
        super().__init__(in_dim, dim, depth)
        if growth_rate < 1:
            raise ValueError(f"growth_rate must be at least 1; got {growth_rate}")
        self.growth_rate, self.out_dim = growth_rate, dim + depth * growth_rate
        self.stream_norms = nn.ModuleList(norm(dim) for _ in range(depth))
        self.norms = nn.ModuleList(norm(growth_rate) for _ in range(depth - 1))
        self.squeeze = nn.ModuleList(nn.Linear(dim + i * growth_rate, dim) for i in range(depth))

    def widths(self, i: int) -> tuple[int, int]:
        return self.dim, self.dim + self.growth_rate

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Pieces, Pieces]:
        return mask, self.project(x, mask), (), ()

    def read(self, state: State, i: int) -> tuple[tuple[Tensor], State]:
        mask, x, _, pieces = state
        stream = self.stream_norms[i](x, mask).relu()
        return (linear_of((stream, *pieces), self.squeeze[i]),), state  # type: ignore[arg-type]

    def write(self, state: State, y: Tensor, i: int) -> tuple[Tensor, Tensor, Pieces, Pieces]:
        mask, x, features, pieces = state
        add, new = y.split((self.dim, self.growth_rate), -1)
        if i < len(self.norms):
            pieces = append(pieces, self.norms[i](new, mask).relu())
        return mask, x + add, (*features, new), pieces

    def end(self, state: State) -> Tensor:
        return torch.cat((state[1], *state[2]), -1)
