"""Recurrent blocks: one layer, in one direction or both.

Both directions run on padded batches: the backward one reads each sentence reversed in place, so padding comes after it
and is never seen. The result is that of a packed sequence, and faster.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from residense.nn.blocks.base import Block


class Recurrent(Block):
    """Base of the recurrent blocks.

    Args:
        in_dim: width read.
        out_dim: width written; even where there are two directions, as each writes one half.
        bidirectional: read the sentence in both directions; else from the first token to the last.
    """

    layer: ClassVar[type[nn.LSTM | nn.GRU]]

    def __init__(self, in_dim: int, out_dim: int, bidirectional: bool = True):
        super().__init__(in_dim, out_dim)
        if bidirectional and out_dim % 2:
            kind = type(self).__name__
            raise ValueError(
                f"a bidirectional {kind} writes half of its width in each direction; {out_dim} is odd"
            )
        width = out_dim // 2 if bidirectional else out_dim
        self.ahead = self.layer(in_dim, width, batch_first=True)
        self.back = self.layer(in_dim, width, batch_first=True) if bidirectional else None
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                for gate in parameter.data.split(width):
                    nn.init.orthogonal_(gate)
            elif "bias_ih" in name:
                self._open(parameter.data)

    def _open(self, bias: Tensor) -> None:
        """Initialise the bias of the gates."""

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        ahead = self.ahead(x)[0]
        if self.back is None:
            return ahead
        step = torch.arange(x.shape[1], device=x.device)
        mirror = torch.where(mask, mask.sum(1, keepdim=True) - 1 - step, step)[..., None]
        back, _ = self.back(x.gather(1, mirror.expand_as(x)))
        return torch.cat((ahead, back.gather(1, mirror.expand_as(back))), -1)


class LSTM(Recurrent):
    """Long short-term memory   (Hochreiter & Schmidhuber 1997; bidirectional: Graves & Schmidhuber 2005).

    Different from the papers, this is torch's: with forget gates, whose bias is 1 at the start, and without peepholes.

    Args:
        in_dim: width read.
        out_dim: width written; even where there are two directions, as each writes one half.
        bidirectional: read the sentence in both directions; else from the first token to the last.
    """

    layer = nn.LSTM

    def _open(self, bias: Tensor) -> None:
        bias.chunk(4)[1].fill_(1.0)  # an open forget gate lets gradients pass from the first step


class GRU(Recurrent):
    """Gated recurrent unit   (Cho et al. 2014, arXiv 1406.1078): three quarters of the weights of an LSTM.

    Different from the paper, this is torch's: the reset gate acts behind the matrix of the state, not in front of it.

    Args:
        in_dim: width read.
        out_dim: width written; even where there are two directions, as each writes one half.
        bidirectional: read the sentence in both directions; else from the first token to the last.
    """

    layer = nn.GRU
