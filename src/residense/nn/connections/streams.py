"""Connections with several residual streams, which blocks read, write and mix with learned coefficients.

Shapes: B batch, L length, D width, S streams; mask [B, L] is True at real tokens.
"""

from itertools import permutations
from math import factorial, log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.bounds import Positive
from residense.nn.connections.base import State, Stream
from residense.nn.norms import RMSNorm


class HyperConnections(Stream):
    """Several residual streams with learned reads, writes and mixing   (Zhu et al. 2024, arXiv 2409.19606).

    h ═╤═ A_r ═══ + ═     x = a_m . h,  h' = A_r^T h + b f(x)   for h [S, D]: the output is the mean of the streams
       └ a_m ─ f ─┘ b

    Block i reads stream i mod S, A_r = 1 and b = 1 at the start: then the mean is `Residual`. S (S + 2) parameters
    for each block; with `dynamic`, those of each token move by s tanh(W rms(h)): D (S + 2) more. S residual streams
    are kept.

    Different from the paper: the output is the mean of the streams, not their sum, so that initial weights of the
    blocks need no factor for S; coefficients are computed behind an RMS norm, in the paper's code a layer norm.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        streams: number of streams.
        dynamic: coefficients depend on the token.
    """

    def __init__(
        self, in_dim: int, dim: int, depth: int, streams: Positive = 4, dynamic: bool = True
    ):
        super().__init__(in_dim, dim, depth)
        if streams < 1:
            raise ValueError(f"streams must be at least 1; got {streams}")
        self.streams = streams
        one = torch.eye(streams)
        starts = [
            torch.cat((one[:, [i % streams]], one, torch.ones(streams, 1)), 1) for i in range(depth)
        ]
        self.static = nn.ParameterList(
            start.flatten() for start in starts
        )  # [S, 1 + S + 1]: read, mix, write
        self.norms, self.dynamic, self.scales = nn.ModuleList(), nn.ModuleList(), nn.ParameterList()
        for _ in range(depth if dynamic else 0):
            self.norms.append(RMSNorm(dim))
            self.dynamic.append(nn.Linear(dim, streams + 2, bias=False))
            self.scales.append(torch.full((2,), 0.01))  # of reads and mixing, and of writes
        for parameter in self.dynamic.parameters():
            nn.init.zeros_(parameter)

    def begin(self, x: Tensor, mask: Tensor) -> State:
        return mask, self.project(x, mask)[..., None, :].expand(
            -1, -1, self.streams, -1
        )  # [B, L, S, D]

    def read(self, state: State, i: int) -> tuple[tuple[Tensor], State]:
        mask, h = state
        coefficients = self.hold(self.coefficients(h, mask, i))
        with torch.autocast(
            h.device.type, enabled=False
        ):  # rounded at each block, the streams would drift
            mixed = torch.einsum(
                "...st, ...sd -> ...td", coefficients[..., :-1], h.to(coefficients.dtype)
            )
        return (mixed[..., 0, :],), (mask, mixed[..., 1:, :], coefficients[..., -1:])

    def coefficients(self, h: Tensor, mask: Tensor, i: int) -> Tensor:
        """How block `i` reads, mixes and writes the streams: [..., S, 1 + S + 1]."""
        static = self.static[i].unflatten(0, (self.streams, -1))
        if not self.dynamic:
            return static
        move = self.dynamic[i](self.norms[i](h, mask)).tanh()
        scale = torch.cat((self.scales[i][:1].expand(self.streams + 1), self.scales[i][1:]))
        return static + scale * move

    def write(self, state: State, y: Tensor, i: int) -> tuple[Tensor, Tensor]:
        mask, mixed, weight = state
        return mask, mixed + weight * y[..., None, :]

    def end(self, state: State) -> Tensor:
        return state[1].mean(-2)


class ManifoldConstrainedHyperConnections(HyperConnections):
    """Hyper-connections whose mixing neither amplifies nor loses: doubly stochastic   (mHC, arXiv 2512.24880).

    h ═╤═ A_r ═══ + ═     x = sigmoid(a) . h,  h' = A_r h + 2 sigmoid(b) f(x),  rows and columns of A_r sum to 1
       └ a ── f ──┘ b

    a, b and A_r are computed from all streams of a token. `permutations`: A_r is a mean of all permutations with
    softmax weights, doubly stochastic exactly (mHC-lite, arXiv 2601.05732); `sinkhorn`, as in the paper: columns and
    rows are normalised in turn, so that rows sum to 1 exactly and columns nearly: with logits of standard deviation 5,
    20 iterations leave errors of some hundredths. D S (2 S + R) parameters for each block, R = S! and S ** 2.

    Different from the paper: permutations instead of Sinkhorn unless it is chosen; the output is the mean of the
    streams; at the start the streams differ in who reads and writes them, as equal ones would stay equal, and A_r keeps
    about 0.7 of each (mHC-lite: nearly all), as its gradient vanishes nearer to 1.

    Args:
        in_dim: width of what enters the stage.
        dim: width of the stage.
        depth: number of blocks.
        streams: number of streams; 5 at most with permutations.
        mixing: how A_r is made doubly stochastic.
        iterations: normalisations of columns and rows by `sinkhorn`.
    """

    orders: Tensor

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        streams: Positive = 4,
        mixing: Literal["permutations", "sinkhorn"] = "permutations",
        iterations: Positive = 20,
    ):
        super().__init__(in_dim, dim, depth, streams, dynamic=False)
        if mixing == "permutations" and streams > 5:
            raise ValueError(
                f"{streams} streams have {factorial(streams)} permutations: use mixing: sinkhorn"
            )
        self.mixing, self.iterations = mixing, iterations
        one = torch.eye(streams)
        if mixing == "permutations":
            orders = torch.stack([one[list(order)] for order in permutations(range(streams))])
            self.register_buffer("orders", orders, persistent=False)
            stay = torch.eye(len(orders))[0]  # the first permutation moves nothing
        else:
            stay = one.flatten()
        others = len(stay) / stay.sum().item() - 1
        stay = stay * log(7 / 3 * max(1, others))  # weight 0.7 against all others together
        self.static = nn.ParameterList()
        for i in range(depth):
            own = 2 * one[i % streams] - 1
            self.static.append(torch.cat((own, own, stay)))
        self.dynamic = nn.ModuleList(
            nn.Linear(streams * dim, 2 * streams + len(stay), bias=False) for _ in range(depth)
        )
        self.scales = nn.ParameterList(torch.full((3,), 0.01) for _ in range(depth))

    def coefficients(self, h: Tensor, mask: Tensor, i: int) -> Tensor:
        tokens = h.flatten(-2)
        move = self.dynamic[i](F.rms_norm(tokens, tokens.shape[-1:]))
        sizes = (self.streams, self.streams, move.shape[-1] - 2 * self.streams)
        parts = zip(
            move.to(self.scales[i]).split(sizes, -1),
            self.static[i].split(sizes),
            self.scales[i],
            strict=True,
        )
        read, write, mixing = (start + scale * part for part, start, scale in parts)
        mixing = self._doubly_stochastic(
            mixing
        ).mT  # column t of the coefficients is what stream t becomes
        return torch.cat((read.sigmoid()[..., None], mixing, 2 * write.sigmoid()[..., None]), -1)

    def _doubly_stochastic(self, logits: Tensor) -> Tensor:
        """Mixing [..., S, S] of logits [..., R], never in half precision: rounding would add up over the depth."""
        if self.mixing == "permutations":
            with torch.autocast(logits.device.type, enabled=False):
                return torch.tensordot(logits.softmax(-1), self.orders, 1)
        logits = logits.unflatten(-1, (self.streams, self.streams))
        for _ in range(self.iterations):
            logits = logits.log_softmax(-2).log_softmax(-1)  # rows last, as in the paper
        return logits.exp()
