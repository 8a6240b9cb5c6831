"""Connections with several residual streams, which blocks read, write and mix.

Shapes: B batch, L length, D width, S streams; mask [B, L] is True at real tokens.
"""

from itertools import permutations
from math import factorial, log
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.connections.base import Connection, Layout, State
from residense.nn.norms import RMSNorm


class Coefficients(NamedTuple):
    """How a block treats the streams of each token; leading dimensions may be left out.

    Attributes:
        read: [B, L, S], weight of each stream in what the block reads.
        mix: [B, L, S, S], weight of stream s (row) in what becomes of stream t (column).
        write: [B, L, S], weight of the block's output in each stream.
    """

    read: Tensor
    mix: Tensor
    write: Tensor


class Streams(Connection):
    """Base class of connections with several residual streams.

    The streams start as copies of the input; the output is their mean.

    Args:
        layout: widths and depth of the stage.
        streams: number of streams.
    """

    def __init__(self, layout: Layout, streams: int):
        super().__init__(layout)
        if streams < 1:
            raise ValueError(f"streams must be at least 1; got {streams}")
        self.streams = streams

    def coefficients(self, h: Tensor, i: int, mask: Tensor) -> Coefficients:
        """Return the coefficients of block `i` for the streams `h` [B, L, S, D]."""
        raise NotImplementedError  # pragma: no cover

    def begin(self, x: Tensor, mask: Tensor) -> Tensor:
        return x[..., None, :].expand(-1, -1, self.streams, -1)

    def read(self, state: Tensor, i: int, mask: Tensor) -> tuple[tuple[Tensor], State]:
        read, mixing, write = self.coefficients(state, i, mask)
        with torch.autocast(state.device.type, enabled=False):  # rounding would add up over depth
            h = state.to(mixing.dtype)
            x = torch.einsum("...s, ...sd -> ...d", read, h)
            mixed = torch.einsum("...st, ...sd -> ...td", mixing, h)
        return (x,), (mixed, write)

    def write(self, state: State, y: Tensor, i: int, mask: Tensor) -> Tensor:
        mixed, write = state
        return mixed + write[..., None] * y[..., None, :]

    def end(self, state: Tensor) -> Tensor:
        return state.mean(-2)


class HyperConnections(Streams):
    """Several residual streams with learned reads, writes and mixing.

    h ═╤═ A_r ═══ + ═     x = a_m . h,  h' = A_r^T h + b f(x)   for h [S, D]
       └ a_m ─ f ─┘ b

    Zhu et al. 2024, arXiv 2409.19606. Starts as `Residual`: block i reads stream i mod S, A_r is
    the identity and b is 1. S (S + 2) parameters for each block; with `dynamic`, those of each token
    move by s tanh(W rms(h)): D (S + 2) more. Different from the paper: the output is the mean of the
    streams, not their sum, so that initial weights of the blocks need no factor for S; coefficients
    are computed behind an RMS norm, in the paper's code a layer norm.

    Args:
        layout: widths and depth of the stage.
        streams: number of streams.
        dynamic: whether coefficients depend on the token.
    """

    def __init__(self, layout: Layout, streams: int = 4, dynamic: bool = True):
        super().__init__(layout, streams)
        each = range(layout.depth)
        self.reads = nn.ParameterList(torch.eye(streams)[i % streams] for i in each)
        self.mixes = nn.ParameterList(torch.eye(streams) for _ in each)
        self.writes = nn.ParameterList(torch.ones(streams) for _ in each)
        self.dynamic = nn.ModuleList()
        if dynamic:
            self.dynamic.extend(DynamicCoefficients(layout.dim, streams) for _ in each)

    def coefficients(self, h: Tensor, i: int, mask: Tensor) -> Coefficients:
        static = Coefficients(self.reads[i], self.mixes[i], self.writes[i])
        if not self.dynamic:
            return static
        moves = self.dynamic[i](h, mask)
        return Coefficients(*(start + move for start, move in zip(static, moves, strict=True)))


class DynamicCoefficients(nn.Module):
    """Compute by how much the coefficients of hyper-connections differ at each token.

    Args:
        dim: width of the streams.
        streams: number of streams.
    """

    def __init__(self, dim: int, streams: int):
        super().__init__()
        self.norm = RMSNorm(dim)
        self.read = nn.Linear(dim, 1, bias=False)
        self.mix = nn.Linear(dim, streams, bias=False)
        self.write = nn.Linear(dim, 1, bias=False)
        for linear in (self.read, self.mix, self.write):
            nn.init.zeros_(linear.weight)
        self.read_scale = nn.Parameter(torch.full((1,), 0.01))  # of reads and mixing
        self.write_scale = nn.Parameter(torch.full((1,), 0.01))

    def forward(self, h: Tensor, mask: Tensor) -> Coefficients:
        """Compute the differences from the streams `h` [B, L, S, D]."""
        h = self.norm(h, mask)
        read = self.read_scale * self.read(h).tanh()
        mixing = self.read_scale * self.mix(h).tanh()
        write = self.write_scale * self.write(h).tanh()
        return Coefficients(read.squeeze(-1), mixing, write.squeeze(-1))


class ManifoldConstrainedHyperConnections(Streams):
    """Hyper-connections whose mixing is doubly stochastic, so that no stream grows or vanishes (mHC).

    h ═╤═ A_r ═══ + ═     x = sigmoid(a) . h,  h' = A_r h + 2 sigmoid(b) f(x)
       └ a ── f ──┘ b

    Xie et al. 2025, arXiv 2512.24880. a, b and A_r are computed from all streams of a token.
    `permutations`: A_r is a mean of all permutations with softmax weights, doubly stochastic exactly
    (mHC-lite, arXiv 2601.05732); `sinkhorn`, as in the paper: columns and rows are normalized in
    turn, so that rows sum to 1 exactly and columns nearly: with logits of standard deviation 5,
    20 iterations leave errors of some hundredths. D S (2 S + R) parameters for each block, R = S!
    and S ** 2.

    Different from the paper: permutations unless `sinkhorn` is chosen; the output is the mean of the
    streams; at the start the streams differ in who reads and writes them, as equal ones would stay
    equal, and A_r keeps about 0.7 of each (mHC-lite: nearly all), as its gradient vanishes nearer
    to 1.

    Args:
        layout: widths and depth of the stage.
        streams: number of streams; 5 at most with permutations.
        mixing: how A_r is made doubly stochastic.
        iterations: number of times that `sinkhorn` normalizes columns and rows.
    """

    orders: Tensor

    def __init__(
        self,
        layout: Layout,
        streams: int = 4,
        mixing: Literal["permutations", "sinkhorn"] = "permutations",
        iterations: int = 20,
    ):
        super().__init__(layout, streams)
        if mixing == "permutations" and streams > 5:
            raise ValueError(
                f"{streams} streams have {factorial(streams)} permutations: use mixing: sinkhorn"
            )
        self.mixing = mixing
        self.iterations = iterations
        one = torch.eye(streams)
        stay = one.flatten()  # logits that mix nothing
        if mixing == "permutations":
            orders = torch.stack([one[list(order)] for order in permutations(range(streams))])
            self.register_buffer("orders", orders, persistent=False)
            stay = torch.eye(len(orders))[0]  # the first permutation is the identity
        others = len(stay) / stay.sum().item() - 1
        stay = stay * log(7 / 3 * max(1, others))  # weight 0.7 against all others together
        each = range(layout.depth)
        own = [2 * one[i % streams] - 1 for i in each]
        self.reads = nn.ParameterList(start.clone() for start in own)
        self.mixes = nn.ParameterList(stay.clone() for _ in each)
        self.writes = nn.ParameterList(start.clone() for start in own)
        self.scales = nn.ParameterList(torch.full((3,), 0.01) for _ in each)
        width = 2 * streams + len(stay)
        self.dynamic = nn.ModuleList(
            nn.Linear(streams * layout.dim, width, bias=False) for _ in each
        )

    def coefficients(self, h: Tensor, i: int, mask: Tensor) -> Coefficients:
        tokens = h.flatten(-2)
        moves = self.dynamic[i](F.rms_norm(tokens, tokens.shape[-1:])).to(self.scales[i])
        sizes = (self.streams, self.streams, len(self.mixes[i]))
        read, write, mixing = moves.split(sizes, -1)
        read_scale, write_scale, mix_scale = self.scales[i]
        read = self.reads[i] + read_scale * read
        write = self.writes[i] + write_scale * write
        mixing = self.mixes[i] + mix_scale * mixing
        # A_r has the streams that come out as rows
        mixing = self._doubly_stochastic(mixing).mT
        return Coefficients(read.sigmoid(), mixing, 2 * write.sigmoid())

    def _doubly_stochastic(self, logits: Tensor) -> Tensor:
        """Return the mixing [..., S, S] of logits [..., R], never computed in half precision."""
        if self.mixing == "permutations":
            with torch.autocast(logits.device.type, enabled=False):
                return torch.tensordot(logits.softmax(-1), self.orders, 1)
        logits = logits.unflatten(-1, (self.streams, self.streams))
        for _ in range(self.iterations):
            logits = logits.log_softmax(-2).log_softmax(-1)  # rows last, as in the paper
        return logits.exp()
