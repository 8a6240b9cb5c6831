"""Connections with several residual streams.

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
    """Coefficients of a block for the streams of each token; leading dimensions may be omitted.

    Attributes:
        read: Weight of each stream in the input of the block [B, L, S].
        mix: Weight of stream s (row) in the new stream t (column) [B, L, S, S].
        write: Weight of the output of the block in each stream [B, L, S].
    """

    read: Tensor
    mix: Tensor
    write: Tensor


class Streams(Connection):
    """Base class of connections with several residual streams.

    The streams start as copies of the input; the output is their mean.

    Args:
        layout: Dimensions of the stage.
        streams: Number of streams.
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
        with torch.autocast(state.device.type, enabled=False):  # errors would add up over depth
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
    """Residual streams with learned reads, writes and mixing.

    h ═╤═ A_r ═══ + ═     x = a_m . h,  h' = A_r^T h + b f(x)   for h [S, D]
       └ a_m ─ f ─┘ b

    Zhu et al. 2024, arXiv 2409.19606. Initialized to `Residual`: block i reads stream i mod S, A_r
    is the identity and b is 1. It has S (S + 2) parameters per block. With `dynamic`, s tanh(W
    rms(h)) is added to the coefficients of each token, with D (S + 2) more parameters. Differences
    from the paper: the output is the mean of the streams instead of their sum, so that initial
    weights do not depend on S; coefficients are computed after an RMS norm, where the code of the
    paper uses a layer norm.

    Args:
        layout: Dimensions of the stage.
        streams: Number of streams.
        dynamic: Whether coefficients depend on the token.
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
    """Token-dependent part of the coefficients of hyper-connections.

    Args:
        dim: Width of the streams.
        streams: Number of streams.
    """

    def __init__(self, dim: int, streams: int):
        super().__init__()
        self.norm = RMSNorm(dim)
        self.read = nn.Linear(dim, 1, bias=False)
        self.mix = nn.Linear(dim, streams, bias=False)
        self.write = nn.Linear(dim, 1, bias=False)
        for linear in (self.read, self.mix, self.write):
            nn.init.zeros_(linear.weight)
        self.read_scale = nn.Parameter(torch.full((1,), 0.01))  # for reads and mixing
        self.write_scale = nn.Parameter(torch.full((1,), 0.01))

    def forward(self, h: Tensor, mask: Tensor) -> Coefficients:
        """Compute the offsets of the coefficients from the streams `h` [B, L, S, D]."""
        h = self.norm(h, mask)
        read = self.read_scale * self.read(h).tanh()
        mixing = self.read_scale * self.mix(h).tanh()
        write = self.write_scale * self.write(h).tanh()
        return Coefficients(read.squeeze(-1), mixing, write.squeeze(-1))


class ManifoldConstrainedHyperConnections(Streams):
    """Hyper-connections with doubly stochastic mixing (mHC).

    h ═╤═ A_r ═══ + ═     x = sigmoid(a) . h,  h' = A_r h + 2 sigmoid(b) f(x)
       └ a ── f ──┘ b

    Xie et al. 2025, arXiv 2512.24880. Doubly stochastic mixing preserves the mean of the streams;
    a, b and A_r are computed from all streams of a token. With `permutations`, A_r is a weighted
    mean of all permutation matrices with softmax weights and thus exactly doubly stochastic
    (mHC-lite, arXiv 2601.05732). With `sinkhorn`, as in the paper, columns and rows are normalized
    alternately: rows sum to exactly 1 and columns approximately. With logits of standard deviation
    5, the error after 20 iterations is a few hundredths. Each block has D S (2 S + R) parameters,
    with R = S! for permutations and R = S ** 2 for sinkhorn.

    Differences from the paper: `permutations` is the default; the output is the mean of the
    streams; blocks initially read and write different streams, since identical streams would stay
    identical; A_r initially keeps about 0.7 of each stream (mHC-lite: nearly all of it), since its
    gradient vanishes closer to 1.

    Args:
        layout: Dimensions of the stage.
        streams: Number of streams; at most 5 with `permutations`.
        mixing: Method that makes A_r doubly stochastic, `permutations` or `sinkhorn`.
        iterations: Number of iterations of `sinkhorn`.
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
        stay = one.flatten()  # logits of the identity
        if mixing == "permutations":
            orders = torch.stack([one[list(order)] for order in permutations(range(streams))])
            self.register_buffer("orders", orders, persistent=False)
            stay = torch.eye(len(orders))[0]  # the first permutation is the identity
        others = len(stay) / stay.sum().item() - 1
        stay = stay * log(7 / 3 * max(1, others))  # weight 0.7, and 0.3 for all others together
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
        # the rows of A_r are the new streams
        mixing = self._doubly_stochastic(mixing).mT
        return Coefficients(read.sigmoid(), mixing, 2 * write.sigmoid())

    def _doubly_stochastic(self, logits: Tensor) -> Tensor:
        """Return doubly stochastic matrices [..., S, S] from logits [..., R]."""
        if self.mixing == "permutations":
            with torch.autocast(logits.device.type, enabled=False):
                return torch.tensordot(logits.softmax(-1), self.orders, 1)
        logits = logits.unflatten(-1, (self.streams, self.streams))
        for _ in range(self.iterations):
            logits = logits.log_softmax(-2).log_softmax(-1)  # rows last, as in the paper
        return logits.exp()
