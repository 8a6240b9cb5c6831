"""Tagging heads: from encoded tokens to a loss and to legal tag sequences.

Shapes: B batch, L length, D width, K labels; mask [B, L] is True at real tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn import crf
from residense.nn.crf import FORBIDDEN, Scores
from residense.tags import legal_transitions


class TaggingHead(nn.Module):
    """Base of the tagging heads: a linear map to one score per label, and the legal moves of the tag scheme.

    Args:
        in_dim: width read.
        labels: names of the K labels.
        scheme: tag scheme of the labels; what it forbids is never predicted.
    """

    forbidden: Tensor
    forbidden_start: Tensor
    forbidden_end: Tensor

    def __init__(self, in_dim: int, labels: Sequence[str], scheme: str):
        super().__init__()
        self.score = nn.Linear(in_dim, len(labels))
        moves, start, end = (
            torch.from_numpy(~legal) for legal in legal_transitions(list(labels), scheme)
        )
        self.register_buffer("forbidden", moves, persistent=False)
        self.register_buffer("forbidden_start", start, persistent=False)
        self.register_buffer("forbidden_end", end, persistent=False)

    def transitions(self) -> Scores:
        """Scores of moving between labels: here 0 where legal."""
        zeros = (torch.zeros_like(f, dtype=torch.float32) for f in self._forbidden())
        return self._mask(Scores(*zeros))

    def _forbidden(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.forbidden, self.forbidden_start, self.forbidden_end

    def _mask(self, scores: Scores) -> Scores:
        return Scores(
            *(s.masked_fill(f, FORBIDDEN) for s, f in zip(scores, self._forbidden(), strict=True))
        )

    def loss(self, h: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Negative log-likelihood of `tags` [B, L] given `h` [B, L, D], summed over the batch."""
        raise NotImplementedError  # pragma: no cover

    def decode(self, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Best legal tags [B, L], their log p(y_t), and log p(y_t | y_{t-1})."""
        raise NotImplementedError  # pragma: no cover


class CRF(TaggingHead):
    """Linear-chain CRF   (Lafferty et al. 2001; Lample et al. 2016, arXiv 1603.01360).

    Args:
        in_dim: width read.
        labels: names of the K labels.
        scheme: tag scheme of the labels; what it forbids has probability zero.
    """

    def __init__(self, in_dim: int, labels: Sequence[str], scheme: str):
        super().__init__(in_dim, labels, scheme)
        self.moves = nn.Parameter(torch.zeros(len(labels), len(labels)))
        self.start = nn.Parameter(torch.zeros(len(labels)))
        self.end = nn.Parameter(torch.zeros(len(labels)))

    def transitions(self) -> Scores:
        return self._mask(Scores(self.moves, self.start, self.end))

    def _scores(self, h: Tensor) -> tuple[Tensor, Scores]:
        """Emissions and transitions in float64, as the loss is a small difference of large sums (MPS has float32)."""
        dtype = torch.float32 if h.device.type == "mps" else torch.float64
        return self.score(h).to(dtype), Scores(*(scores.to(dtype) for scores in self.transitions()))

    def loss(self, h: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        emissions, scores = self._scores(h)
        losses = crf.log_partition(emissions, mask, scores) - crf.path_score(
            emissions, tags, mask, scores
        )
        return losses.sum().to(torch.promote_types(h.dtype, torch.float32))

    def decode(self, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        emissions, scores = self._scores(h)
        tags = crf.viterbi(emissions, mask, scores)
        here, after = crf.chain_probabilities(emissions, tags, mask, scores)
        return tags, here.float(), after.float()


class Softmax(TaggingHead):
    """Independent tags in training, the best legal sequence in decoding.

    Args:
        in_dim: width read.
        labels: names of the K labels.
        scheme: tag scheme of the labels; what it forbids is never predicted.
    """

    def loss(self, h: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        return F.cross_entropy(self.score(h)[mask].float(), tags[mask], reduction="sum")

    def decode(self, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        emissions = self.score(h).float().log_softmax(-1)
        tags = crf.viterbi(emissions, mask, self.transitions())
        chosen = emissions.gather(2, tags[..., None])[..., 0]
        return tags, chosen, chosen
