"""Pooling: from encoded tokens to one vector for a text.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens, of which each text has one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from residense.bounds import Positive


class Pooling(nn.Module):
    """Base of all poolings.

    Args:
        in_dim: width of the encoded tokens.
        embedding_dim: width of the embedded tokens.
    """

    def __init__(self, in_dim: int, embedding_dim: int):
        super().__init__()
        self.out_dim = in_dim

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder reads: here the embedded tokens `x` [B, L, D] and their mask as they are."""
        return x, mask

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """Map encoded tokens [B, L, D] to [B, out_dim]."""
        raise NotImplementedError  # pragma: no cover


class MeanPooling(Pooling):
    """The mean of all tokens."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return h.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True)


class MaxPooling(Pooling):
    """The largest value of each feature   (Collobert et al. 2011; Kim 2014, arXiv 1408.5882)."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return h.masked_fill(~mask[..., None], float("-inf")).amax(1)


class LastPooling(Pooling):
    """The first half of the last token and the second half of the first: where the directions of an LSTM end."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, h.shape[-1])
        half = h.shape[-1] // 2
        return torch.cat([h.gather(1, last)[:, 0, :half], h[:, 0, half:]], -1)


class AttentionPooling(Pooling):
    """A mean weighted by w . tanh(W h)   (Yang et al. 2016; Lin et al. 2017, arXiv 1703.03130).

    Args:
        in_dim: width of the encoded tokens.
        embedding_dim: width of the embedded tokens.
        hidden: width of the tanh.
    """

    def __init__(self, in_dim: int, embedding_dim: int, hidden: Positive = 128):
        super().__init__(in_dim, embedding_dim)
        self.score = nn.Sequential(
            nn.Linear(in_dim, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False)
        )

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        h = h.masked_fill(~mask[..., None], 0.0)
        scores = self.score(h).squeeze(-1).masked_fill(~mask, float("-inf"))
        return (scores.softmax(-1)[..., None] * h).sum(1)


class ClassToken(Pooling):
    """What became of a learned vector that is put in front of the tokens   (Devlin et al. 2019, arXiv 1810.04805).

    Args:
        in_dim: width of the encoded tokens.
        embedding_dim: width of the embedded tokens.
    """

    def __init__(self, in_dim: int, embedding_dim: int):
        super().__init__(in_dim, embedding_dim)
        self.token = nn.Parameter(torch.randn(embedding_dim) * 0.02)

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        first = self.token.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([first, x], 1), torch.cat([torch.ones_like(mask[:, :1]), mask], 1)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return h[:, 0]


PoolingFactory = Callable[[int, int], Pooling]
