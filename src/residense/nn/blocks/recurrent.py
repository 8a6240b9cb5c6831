"""Recurrent blocks with one layer, in one or both directions.

Both directions run on padded batches. The backward direction reads each sentence reversed in place,
so that the padding stays at the end. The result equals that of a packed sequence and is faster to
compute.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from residense.nn.blocks.base import Block


class Recurrent(Block):
    """Base class of the recurrent blocks.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output; even if `bidirectional`, since each direction computes one
            half.
        bidirectional: Whether to read the sentence in both directions.
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

    This is `torch.nn.LSTM`, which has forget gates, unlike the paper, and no peephole connections.
    The bias of the forget gates is initialized to 1.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output; even if `bidirectional`, since each direction computes one
            half.
        bidirectional: Whether to read the sentence in both directions.
    """

    layer = nn.LSTM

    def _init_bias(self, bias: Tensor) -> None:
        bias.chunk(4)[1].fill_(1.0)  # an open forget gate lets gradients flow from the start


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078), with 3/4 of the weights of an LSTM.

    This is `torch.nn.GRU`, which, unlike the paper, applies the reset gate after the
    hidden-to-hidden matrix.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output; even if `bidirectional`, since each direction computes one
            half.
        bidirectional: Whether to read the sentence in both directions.
    """

    layer = nn.GRU
