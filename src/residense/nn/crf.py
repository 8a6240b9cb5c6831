"""Linear-chain conditional random field: exact log-partition, marginals and best path   (Lafferty et al. 2001).

    p(y | x) = exp(start[y_1] + sum_t emissions[t, y_t] + sum_t moves[y_t, y_{t+1}] + end[y_L]) / Z

Functions of tensors, without state. A forbidden transition carries the score `FORBIDDEN`, minus infinity. All are exact
however far apart the scores are, in the precision of the scores: give them float64 where differences of large sums
count, as in a loss.

Shapes: B batch, L length, K labels; emissions [B, L, K], mask [B, L] True at real tokens, which come first;
moves [K, K] from row to column, start [K], end [K].
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FORBIDDEN = float("-inf")


class Scores(NamedTuple):
    """Scores of the transitions: `moves` [K, K], `start` [K], `end` [K]."""

    moves: Tensor
    start: Tensor
    end: Tensor


def _finite(scores: Tensor) -> Tensor:
    """Minus infinity as a number whose exponential is zero, so that gradients are numbers too: they are zero."""
    return scores.clamp(min=torch.finfo(scores.dtype).min / 4)


def _mixer(moves: Tensor) -> Callable[[Tensor], Tensor]:
    """A function `alpha` [B, K] -> log sum_i exp(alpha[i] + moves[i, j]).

    The sum is a product of matrices. Where one comes near the smallest number of its type, as where the only legal way
    to a label is far behind the best illegal one, all are added up in log space: slower by the factor K, and rare.
    """
    limits = torch.finfo(moves.dtype)
    peak = moves.amax().detach()
    weights = (moves - peak).exp()

    def mix(alpha: Tensor) -> Tensor:
        top = alpha.amax(-1, keepdim=True).detach()
        mass = (alpha - top).exp() @ weights
        if (
            mass.amin() > limits.tiny / limits.eps
        ):  # what has underflown is less than a rounding error
            return mass.log() + (top + peak)
        return _finite(alpha[:, :, None] + moves).logsumexp(1)

    return mix


def forward_scores(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """log of the summed weight of all paths that end in a label at a token: [B, L, K]; padding repeats the last."""
    alpha, mix = _finite(scores.start + emissions[:, 0]), _mixer(scores.moves)
    alphas = [alpha]
    for t in range(1, emissions.shape[1]):
        alpha = torch.where(mask[:, t, None], mix(alpha) + emissions[:, t], alpha)
        alphas.append(alpha)
    return torch.stack(alphas, 1)


def backward_scores(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """log of the summed weight of all ways to go on from a label at a token: [B, L, K]."""
    beta, mix = _finite(scores.end).expand_as(emissions[:, 0]), _mixer(scores.moves.T)
    betas = [beta]
    for t in range(emissions.shape[1] - 1, 0, -1):
        beta = torch.where(mask[:, t, None], mix(beta + emissions[:, t]), beta)
        betas.append(beta)
    return torch.stack(betas[::-1], 1)


def log_partition(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """log Z of each sentence: [B]; 0 without tokens, as there is one path then, which is empty."""
    last = forward_scores(emissions, mask, scores)[:, -1]
    return _finite(last + scores.end).logsumexp(-1).masked_fill(~mask[:, 0], 0.0)


def path_score(emissions: Tensor, tags: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Score of the paths `tags` [B, L]: [B]."""
    tags = tags.masked_fill(~mask, 0)
    last = tags.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
    emitted = emissions.gather(2, tags[..., None])[..., 0].masked_fill(~mask, 0.0).sum(1)
    moved = scores.moves[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0.0).sum(1)
    return (scores.start[tags[:, 0]] + emitted + moved + scores.end[last]).masked_fill(
        ~mask[:, 0], 0.0
    )


def marginals(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """p(y_t = k | x): [B, L, K]."""
    alpha, beta = forward_scores(emissions, mask, scores), backward_scores(emissions, mask, scores)
    return torch.softmax(alpha + beta, -1)


def chain_probabilities(
    emissions: Tensor, tags: Tensor, mask: Tensor, scores: Scores
) -> tuple[Tensor, Tensor]:
    """Along the paths `tags`: log p(y_t) and log p(y_t | y_{t-1}), each [B, L].

    The first of a span's first token plus the second of the others is the log-probability of the whole span.
    """
    alpha, beta = forward_scores(emissions, mask, scores), backward_scores(emissions, mask, scores)
    here = (alpha + beta).log_softmax(-1).gather(2, tags[..., None])[..., 0]
    # p(y_t | y_{t-1}) is proportional to exp(moves[y_{t-1}, .] + emissions[t, .] + beta[t, .])
    onward = (scores.moves[tags[:, :-1]] + emissions[:, 1:] + beta[:, 1:]).log_softmax(-1)
    after = onward.gather(2, tags[:, 1:, None])[..., 0]
    return here, torch.cat((here[:, :1], after), 1)


def viterbi(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """The best path of each sentence: [B, L], 0 at padded positions."""
    best = scores.start + emissions[:, 0]
    stay = torch.arange(emissions.shape[2], device=emissions.device).expand_as(best)
    pointers = []
    for t in range(1, emissions.shape[1]):
        top, pointer = (best[:, :, None] + scores.moves).max(1)
        real = mask[:, t, None]
        best = torch.where(real, top + emissions[:, t], best)
        pointers.append(torch.where(real, pointer, stay))
    tag = (best + scores.end).argmax(-1, keepdim=True)
    path = [tag]
    for pointer in reversed(pointers):
        tag = pointer.gather(1, tag)
        path.append(tag)
    return torch.cat(path[::-1], 1).masked_fill(~mask, 0)
