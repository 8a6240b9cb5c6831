"""Tagging heads: compute a loss from encoded tokens, and decode legal tag sequences.

Shapes: B batch, L length, D width, K labels; mask [B, L] is True at real tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn import crf
from residense.nn.crf import FORBIDDEN, Scores
from residense.tags import LegalTransitions


class Decoded(NamedTuple):
    """Predictions of a tagging head; see `crf.path_probabilities`.

    Attributes:
        tags: Best legal tags [B, L], 0 at padding.
        log_prob: log p(y_t) [B, L].
        log_prob_given_previous: log p(y_t | y_{t-1}) [B, L].
    """

    tags: Tensor
    log_prob: Tensor
    log_prob_given_previous: Tensor


class TaggingHead(nn.Module):
    """Base class of tagging heads, with a linear map to one score for each label.

    Args:
        in_dim: Width of the encoded tokens.
        legal: Legal transitions between the K labels; only legal sequences are predicted.
    """

    illegal: Tensor
    illegal_start: Tensor
    illegal_end: Tensor

    def __init__(self, in_dim: int, legal: LegalTransitions):
        super().__init__()
        self.score = nn.Linear(in_dim, len(legal.start))
        for name, table in zip(("illegal", "illegal_start", "illegal_end"), legal, strict=True):
            self.register_buffer(name, torch.from_numpy(~table), persistent=False)

    def scores(self) -> Scores:
        """Return the scores of transitions, by default 0 for legal ones."""
        num_labels = len(self.illegal_start)
        zeros = self.score.weight.new_zeros(num_labels, num_labels, dtype=torch.float32)
        return self._forbid(zeros, zeros[0], zeros[0])

    def _forbid(self, transitions: Tensor, start: Tensor, end: Tensor) -> Scores:
        return Scores(
            transitions.masked_fill(self.illegal, FORBIDDEN),
            start.masked_fill(self.illegal_start, FORBIDDEN),
            end.masked_fill(self.illegal_end, FORBIDDEN),
        )

    def loss(self, h: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Return the summed negative log likelihood of `tags` [B, L] given `h` [B, L, D]."""
        raise NotImplementedError  # pragma: no cover

    def decode(self, h: Tensor, mask: Tensor) -> Decoded:
        """Return the best legal tags of `h` [B, L, D] and their probabilities."""
        raise NotImplementedError  # pragma: no cover


HeadFactory = Callable[[int, LegalTransitions], TaggingHead]


class CRF(TaggingHead):
    """Linear-chain CRF (Lafferty et al. 2001; Lample et al. 2016, arXiv 1603.01360).

    Args:
        in_dim: Width of the encoded tokens.
        legal: Legal transitions between the labels; illegal sequences have probability zero.
    """

    def __init__(self, in_dim: int, legal: LegalTransitions):
        super().__init__(in_dim, legal)
        num_labels = len(legal.start)
        self.transitions = nn.Parameter(torch.zeros(num_labels, num_labels))
        self.start_transitions = nn.Parameter(torch.zeros(num_labels))
        self.end_transitions = nn.Parameter(torch.zeros(num_labels))

    def scores(self) -> Scores:
        return self._forbid(self.transitions, self.start_transitions, self.end_transitions)

    def _in_double(self, h: Tensor) -> tuple[Tensor, Scores]:
        """Return emissions and scores in float64; the loss is a small difference of large sums."""
        dtype = torch.float32 if h.device.type == "mps" else torch.float64  # mps has no float64
        return self.score(h).to(dtype), Scores(*(scores.to(dtype) for scores in self.scores()))

    def loss(self, h: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        emissions, scores = self._in_double(h)
        log_partition = crf.log_partition(emissions, mask, scores)
        losses = log_partition - crf.path_score(emissions, tags, mask, scores)
        return losses.sum().to(torch.promote_types(h.dtype, torch.float32))

    def decode(self, h: Tensor, mask: Tensor) -> Decoded:
        emissions, scores = self._in_double(h)
        tags = crf.viterbi(emissions, mask, scores)
        single, given_previous = crf.path_probabilities(emissions, tags, mask, scores)
        return Decoded(tags, single.float(), given_previous.float())


class Softmax(TaggingHead):
    """Independent softmax for each token in training, the best legal sequence in decoding.

    Args:
        in_dim: Width of the encoded tokens.
        legal: Legal transitions between the labels; only legal sequences are predicted.
    """

    def loss(self, h: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        return F.cross_entropy(self.score(h)[mask].float(), tags[mask], reduction="sum")

    def decode(self, h: Tensor, mask: Tensor) -> Decoded:
        emissions = self.score(h).float().log_softmax(-1)
        tags = crf.viterbi(emissions, mask, self.scores())
        log_prob = emissions.gather(2, tags[..., None])[..., 0]
        return Decoded(tags, log_prob, log_prob)
