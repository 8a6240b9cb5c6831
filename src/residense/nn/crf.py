"""Linear-chain conditional random field: log partition function, best path and marginals.

    p(y | x) = exp(start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_t, y_t+1] + end[y_L]) / Z

Lafferty et al. 2001. All functions are stateless. A forbidden transition has the score `FORBIDDEN`,
minus infinity. The functions are stable for scores of any range, up to the precision of the scores:
use float64 where differences of large sums matter, as in a loss.

Shapes: B batch, L length, K labels; emissions [B, L, K]; transitions [K, K] from row to column,
start [K], end [K]; mask [B, L] is True at real tokens, which come first.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FORBIDDEN = float("-inf")


class Scores(NamedTuple):
    """Scores of transitions between labels, and of the labels that start and end a sentence.

    Attributes:
        transitions: Score of each transition [K, K].
        start: Score of each label at the start of a sentence [K].
        end: Score of each label at the end of a sentence [K].
    """

    transitions: Tensor
    start: Tensor
    end: Tensor


def log_partition(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Return log Z of each sentence [B]; 0 for a sentence without tokens."""
    last = forward_scores(emissions, mask, scores)[:, -1]
    return _finite(last + scores.end).logsumexp(-1).masked_fill(~mask[:, 0], 0.0)


def path_score(emissions: Tensor, tags: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Return the scores [B] of the paths `tags` [B, L]."""
    tags = tags.masked_fill(~mask, 0)
    last = tags.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
    emitted = emissions.gather(2, tags[..., None])[..., 0].masked_fill(~mask, 0.0).sum(1)
    moved = scores.transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0.0).sum(1)
    total = scores.start[tags[:, 0]] + emitted + moved + scores.end[last]
    return total.masked_fill(~mask[:, 0], 0.0)


def forward_scores(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Return the log weights [B, L, K] of all paths up to each label; padding repeats the last."""
    mix = _mixer(scores.transitions)
    alpha = _finite(scores.start + emissions[:, 0])
    alphas = [alpha]
    for t in range(1, emissions.shape[1]):
        alpha = torch.where(mask[:, t, None], mix(alpha) + emissions[:, t], alpha)
        alphas.append(alpha)
    return torch.stack(alphas, 1)


def backward_scores(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Return the log weights [B, L, K] of all paths after each label."""
    mix = _mixer(scores.transitions.T)
    beta = _finite(scores.end).expand_as(emissions[:, 0])
    betas = [beta]
    for t in range(emissions.shape[1] - 1, 0, -1):
        beta = torch.where(mask[:, t, None], mix(beta + emissions[:, t]), beta)
        betas.append(beta)
    return torch.stack(betas[::-1], 1)


def marginals(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Return p(y_t = k | x) [B, L, K]."""
    alpha = forward_scores(emissions, mask, scores)
    beta = backward_scores(emissions, mask, scores)
    return torch.softmax(alpha + beta, -1)


def path_probabilities(
    emissions: Tensor, tags: Tensor, mask: Tensor, scores: Scores
) -> tuple[Tensor, Tensor]:
    """Return log p(y_t) and log p(y_t | y_{t-1}) along the paths `tags`, each [B, L].

    The log probability of a span is the first value at its first token plus the second values at
    its other tokens.
    """
    alpha = forward_scores(emissions, mask, scores)
    beta = backward_scores(emissions, mask, scores)
    single = (alpha + beta).log_softmax(-1).gather(2, tags[..., None])[..., 0]
    # p(y_t | y_{t-1}) ~ exp(transitions[y_{t-1}, .] + emissions[t, .] + beta[t, .])
    following = scores.transitions[tags[:, :-1]] + emissions[:, 1:] + beta[:, 1:]
    given_previous = following.log_softmax(-1).gather(2, tags[:, 1:, None])[..., 0]
    return single, torch.cat((single[:, :1], given_previous), 1)


def viterbi(emissions: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Return the best path of each sentence [B, L], 0 at padding."""
    best = scores.start + emissions[:, 0]
    stay = torch.arange(emissions.shape[2], device=emissions.device).expand_as(best)
    pointers = []
    for t in range(1, emissions.shape[1]):
        top, pointer = (best[:, :, None] + scores.transitions).max(1)
        real = mask[:, t, None]
        best = torch.where(real, top + emissions[:, t], best)
        pointers.append(torch.where(real, pointer, stay))
    tag = (best + scores.end).argmax(-1, keepdim=True)
    path = [tag]
    for pointer in reversed(pointers):
        tag = pointer.gather(1, tag)
        path.append(tag)
    return torch.cat(path[::-1], 1).masked_fill(~mask, 0)


def _finite(scores: Tensor) -> Tensor:
    """Replace minus infinity by a finite number, so that gradients are 0 instead of NaN."""
    return scores.clamp(min=torch.finfo(scores.dtype).min / 4)


def _mixer(transitions: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of `alpha` [B, K] that computes log sum_i exp(alpha[i] + transitions[i, j]).

    The sum is a matrix product. If it is close to underflow, for example if the only legal path to
    a label scores far below the best illegal one, it is computed in log space, which is K times
    slower but rarely needed.
    """
    limits = torch.finfo(transitions.dtype)
    peak = transitions.amax().detach()
    weights = (transitions - peak).exp()

    def mix(alpha: Tensor) -> Tensor:
        top = alpha.amax(-1, keepdim=True).detach()
        mass = (alpha - top).exp() @ weights
        # terms that underflow are below the rounding error
        if mass.amin() > limits.tiny / limits.eps:
            return mass.log() + (top + peak)
        return _finite(alpha[:, :, None] + transitions).logsumexp(1)

    return mix
