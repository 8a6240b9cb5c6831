"""Pooling of encoded tokens to one vector for each text.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens, at least one in each text.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pooling(nn.Module):
    """Base class of pooling layers.

    Args:
        in_dim: Width of the encoded tokens.
        embedding_dim: Width of the embeddings.
    """

    def __init__(self, in_dim: int, embedding_dim: int):
        super().__init__()
        self.out_dim = in_dim

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the encoder and its mask, by default the embeddings `x` [B, L, D]."""
        return x, mask

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """Map encoded tokens [B, L, D] to [B, out_dim]."""
        raise NotImplementedError  # pragma: no cover


PoolingFactory = Callable[[int, int], Pooling]


class MeanPooling(Pooling):
    """Mean over the tokens."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return h.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True)


class MaxPooling(Pooling):
    """Maximum over the tokens (Collobert et al. 2011; Kim 2014, arXiv 1408.5882)."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return h.masked_fill(~mask[..., None], float("-inf")).amax(1)


class KMaxPooling(Pooling):
    """The k largest values of each feature, in text order (arXiv 1404.2188).

    Shorter texts are padded with zeros.

    Args:
        in_dim: Width of the encoded tokens.
        embedding_dim: Width of the embeddings.
        k: Number of values per feature.
    """

    def __init__(self, in_dim: int, embedding_dim: int, k: int = 8):
        super().__init__(in_dim, embedding_dim)
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        self.k = k
        self.out_dim = k * in_dim

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        missing = max(0, self.k - h.shape[1])
        h = h.masked_fill(~mask[..., None], float("-inf"))
        h = F.pad(h, (0, 0, 0, missing), value=float("-inf"))
        places = h.topk(self.k, 1).indices.sort(1).values
        values = h.gather(1, places)
        return values.masked_fill(values.isneginf(), 0.0).flatten(1)


class LastPooling(Pooling):
    """First half of the last token and second half of the first, the final states of a BiLSTM."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, h.shape[-1])
        half = h.shape[-1] // 2
        return torch.cat([h.gather(1, last)[:, 0, :half], h[:, 0, half:]], -1)


class AttentionPooling(Pooling):
    """Mean weighted by softmax(w . tanh(W h)) (Lin et al. 2017, arXiv 1703.03130).

    Args:
        in_dim: Width of the encoded tokens.
        embedding_dim: Width of the embeddings.
        hidden: Width of the hidden layer.
    """

    def __init__(self, in_dim: int, embedding_dim: int, hidden: int = 128):
        super().__init__(in_dim, embedding_dim)
        query = nn.Linear(hidden, 1, bias=False)
        self.score = nn.Sequential(nn.Linear(in_dim, hidden), nn.Tanh(), query)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        h = h.masked_fill(~mask[..., None], 0.0)
        scores = self.score(h).squeeze(-1).masked_fill(~mask, float("-inf"))
        return (scores.softmax(-1)[..., None] * h).sum(1)


class ClassToken(Pooling):
    """Encoding of a learned token before the text (Devlin et al. 2019, arXiv 1810.04805).

    Args:
        in_dim: Width of the encoded tokens.
        embedding_dim: Width of the embeddings.
    """

    def __init__(self, in_dim: int, embedding_dim: int):
        super().__init__(in_dim, embedding_dim)
        self.token = nn.Parameter(torch.randn(embedding_dim) * 0.02)

    def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        first = self.token.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([first, x], 1), torch.cat([torch.ones_like(mask[:, :1]), mask], 1)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return h[:, 0]
