"""Recurrent blocks: one layer, in one direction or both.

Both directions run on padded batches. The backward one reads each sentence reversed in place, so
that padding comes last and is never seen. The result is that of a packed sequence, computed faster.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from residense.nn.blocks.base import Block


class Recurrent(Block):
    """Base class of the recurrent blocks.

    Args:
        in_dim: width of the input.
        out_dim: width of the output; even with two directions, as each writes one half.
        bidirectional: whether to read the sentence in both directions.
    """

    layer: ClassVar[type[nn.LSTM | nn.GRU]]

    def __init__(self, in_dim: int, out_dim: int, bidirectional: bool = True):
        super().__init__(in_dim, out_dim)
        kind = type(self).__name__
        if bidirectional and out_dim % 2:
            raise ValueError(f"a bidirectional {kind} needs an even out_dim; got {out_dim}")
        width = out_dim // 2 if bidirectional else out_dim
        self.forward_rnn = self.layer(in_dim, width, batch_first=True)
        self.backward_rnn = None
        if bidirectional:
            self.backward_rnn = self.layer(in_dim, width, batch_first=True)
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                for gate in parameter.data.split(width):
                    nn.init.orthogonal_(gate)
            elif "bias_ih" in name:
                self._init_bias(parameter.data)

    def _init_bias(self, bias: Tensor) -> None:
        """Initialize the input bias of the gates."""

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        forward, _ = self.forward_rnn(x)
        if self.backward_rnn is None:
            return forward
        step = torch.arange(x.shape[1], device=x.device)
        mirror = torch.where(mask, mask.sum(1, keepdim=True) - 1 - step, step)[..., None]
        backward, _ = self.backward_rnn(x.gather(1, mirror.expand_as(x)))
        return torch.cat((forward, backward.gather(1, mirror.expand_as(backward))), -1)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997).

    Different from the paper, this is torch's: with forget gates, whose bias starts at 1, and without
    peepholes.

    Args:
        in_dim: width of the input.
        out_dim: width of the output; even with two directions, as each writes one half.
        bidirectional: whether to read the sentence in both directions.
    """

    layer = nn.LSTM

    def _init_bias(self, bias: Tensor) -> None:
        bias.chunk(4)[1].fill_(1.0)  # an open forget gate passes gradients from the first step


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078): 3/4 of the weights of an LSTM.

    Different from the paper, this is torch's: the reset gate acts behind the matrix of the state.

    Args:
        in_dim: width of the input.
        out_dim: width of the output; even with two directions, as each writes one half.
        bidirectional: whether to read the sentence in both directions.
    """

    layer = nn.GRU
