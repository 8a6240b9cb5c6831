"""The conditional random field against brute force over all paths."""

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from residense.nn import crf
from residense.nn.crf import FORBIDDEN, Scores


class Case(NamedTuple):
    emissions: Tensor
    mask: Tensor
    scores: Scores


def case(
    seed: int, lengths: Sequence[int], labels: int, forbidden: float = 0.0, scale: float = 2.0
) -> Case:
    """Random scores, some of them forbidden; label 0 may always follow, start and end."""
    source = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=source, dtype=torch.float64)

    def forbid(scores: Tensor) -> Tensor:
        banned = torch.rand(scores.shape, generator=source) < forbidden
        banned[..., 0] = False
        return scores.masked_fill(banned, FORBIDDEN)

    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    scores = Scores(forbid(draw(labels, labels)), forbid(draw(labels)), forbid(draw(labels)))
    return Case(draw(len(lengths), max(lengths), labels), mask, scores)


CASES = [
    case(0, [1, 4, 2, 4], 3),
    case(1, [5, 1, 3], 4, forbidden=0.4),
    case(2, [2, 6, 6, 1], 2, forbidden=0.5),
    case(3, [1, 1], 5, forbidden=0.3),
    case(4, [4, 3], 5, forbidden=0.7, scale=6.0),
]
everywhere = pytest.mark.parametrize("given", CASES, ids=range(len(CASES)))


def score(path: Sequence[int], emissions: Tensor, scores: Scores) -> float:
    """Score of one path of one sentence, without its padding, added up by hand."""
    moved = sum(float(scores.transitions[a, b]) for a, b in pairwise(path))
    emitted = sum(float(emissions[t, tag]) for t, tag in enumerate(path))
    return float(scores.start[path[0]]) + emitted + moved + float(scores.end[path[-1]])


def paths(given: Case, sentence: int) -> dict[tuple[int, ...], float]:
    """Every path of a sentence and its score."""
    length, labels = int(given.mask[sentence].sum()), given.emissions.shape[-1]
    every = product(range(labels), repeat=length)
    return {path: score(path, given.emissions[sentence], given.scores) for path in every}


def distributions(given: Case) -> list[dict[tuple[int, ...], float]]:
    """For each sentence the probability of every path."""
    found = []
    for sentence in range(len(given.mask)):
        scored = paths(given, sentence)
        top = max(scored.values())
        total = sum(math.exp(value - top) for value in scored.values())
        found.append({path: math.exp(value - top) / total for path, value in scored.items()})
    return found


@everywhere
def test_log_partition_sums_over_all_paths(given: Case) -> None:
    scored = [paths(given, i) for i in range(len(given.mask))]
    expected = [torch.tensor(list(s.values()), dtype=torch.float64).logsumexp(0) for s in scored]
    torch.testing.assert_close(
        crf.log_partition(*given), torch.stack(expected), rtol=1e-12, atol=1e-10
    )


@everywhere
def test_marginals_sum_over_the_paths_through_a_label(given: Case) -> None:
    marginals = crf.marginals(*given)
    for sentence, paths_of in enumerate(distributions(given)):
        expected = torch.zeros_like(marginals[sentence, : given.mask[sentence].sum()])
        for path, probability in paths_of.items():
            for t, tag in enumerate(path):
                expected[t, tag] += probability
        torch.testing.assert_close(
            marginals[sentence, given.mask[sentence]], expected, rtol=1e-9, atol=1e-12
        )


@everywhere
def test_gradients_of_the_log_partition_are_the_marginals(given: Case) -> None:
    emissions = given.emissions.clone().requires_grad_()
    crf.log_partition(emissions, given.mask, given.scores).sum().backward()
    expected = crf.marginals(*given).masked_fill(~given.mask[..., None], 0.0)
    torch.testing.assert_close(emissions.grad, expected, rtol=1e-9, atol=1e-12)


@everywhere
def test_viterbi_finds_the_best_of_all_paths(given: Case) -> None:
    best = crf.viterbi(*given)
    assert best.shape == given.mask.shape
    assert not best[~given.mask].any()
    for sentence, mask in enumerate(given.mask):
        scored = paths(given, sentence)
        assert tuple(best[sentence, mask].tolist()) == max(scored, key=scored.__getitem__)


@everywhere
def test_path_score_adds_up_one_path(given: Case) -> None:
    source = torch.Generator().manual_seed(9)
    for _ in range(5):
        tags = torch.randint(given.emissions.shape[-1], given.mask.shape, generator=source)
        rows = zip(tags, given.mask, given.emissions, strict=True)
        expected = [
            score(row[mask].tolist(), emissions, given.scores) for row, mask, emissions in rows
        ]
        found = crf.path_score(given.emissions, tags, given.mask, given.scores)
        torch.testing.assert_close(
            found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-10
        )


@everywhere
@pytest.mark.parametrize("seed", range(3))
def test_path_probabilities_multiply_to_that_of_any_span(given: Case, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    best = crf.viterbi(*given)
    noise = torch.randint(given.emissions.shape[-1], best.shape, generator=source)
    every = distributions(given)
    # paths that are likely, possible, and (with a forbidden transition) impossible
    for tags in (best, torch.where(torch.rand(best.shape, generator=source) < 0.5, best, noise)):
        here, after = crf.path_probabilities(given.emissions, tags, given.mask, given.scores)
        for sentence, paths_of in enumerate(every):
            path = tags[sentence, given.mask[sentence]].tolist()
            for start, end in ((a, b) for b in range(1, len(path) + 1) for a in range(b)):
                expected = sum(
                    p for other, p in paths_of.items() if list(other[start:end]) == path[start:end]
                )
                prefix = sum(p for other, p in paths_of.items() if other[start] == path[start])
                if (
                    prefix < 1e-200
                ):  # a span that cannot begin has probability zero, whatever is said of its rest
                    assert here[sentence, start] < -400
                    continue
                found = (here[sentence, start] + after[sentence, start + 1 : end].sum()).exp()
                assert found.item() == pytest.approx(expected, rel=1e-8, abs=1e-14)


def padded(given: Case, extra: int) -> Case:
    junk = torch.full(
        (len(given.mask), extra, given.emissions.shape[-1]), 77.0, dtype=torch.float64
    )
    mask = torch.cat((given.mask, torch.zeros(len(given.mask), extra, dtype=torch.bool)), 1)
    emissions = given.emissions.masked_fill(~given.mask[..., None], -55.0)
    return Case(torch.cat((emissions, junk), 1), mask, given.scores)


@everywhere
def test_padding_does_not_change_scores(given: Case) -> None:
    longer, length = padded(given, 3), given.mask.shape[1]
    tags = crf.viterbi(*given)
    longer_tags = crf.viterbi(*longer)
    assert torch.equal(longer_tags[:, :length], tags)
    assert not longer_tags[:, length:].any()
    torch.testing.assert_close(crf.log_partition(*longer), crf.log_partition(*given))
    torch.testing.assert_close(
        crf.marginals(*longer)[:, :length][given.mask], crf.marginals(*given)[given.mask]
    )
    found = crf.path_score(longer.emissions, longer_tags, longer.mask, longer.scores)
    torch.testing.assert_close(
        found, crf.path_score(given.emissions, tags, given.mask, given.scores)
    )
    chains = crf.path_probabilities(longer.emissions, longer_tags, longer.mask, longer.scores)
    expected = crf.path_probabilities(given.emissions, tags, given.mask, given.scores)
    for new, old in zip(chains, expected, strict=True):
        torch.testing.assert_close(new[:, :length][given.mask], old[given.mask])


def test_padding_gets_no_gradient() -> None:
    given = CASES[0]
    emissions = given.emissions.clone().requires_grad_()
    partition = crf.log_partition(emissions, given.mask, given.scores)
    (
        partition
        - crf.path_score(emissions, torch.ones_like(given.mask).long(), given.mask, given.scores)
    ).sum().backward()
    assert emissions.grad is not None
    assert not emissions.grad[~given.mask].any()
    assert emissions.grad[given.mask].any()


def test_a_path_has_no_more_than_the_weight_of_all() -> None:
    given = case(5, [30, 17, 1], 7, forbidden=0.2)
    best = crf.path_score(given.emissions, crf.viterbi(*given), given.mask, given.scores)
    assert (best < crf.log_partition(*given)).all()
    torch.testing.assert_close(
        crf.marginals(*given).sum(-1), torch.ones_like(given.mask, dtype=torch.float64)
    )


def test_derivatives_agree_with_finite_differences() -> None:
    emissions, mask, scores = case(6, [3, 2], 3)
    inputs = tuple(x.clone().requires_grad_() for x in (emissions, *scores))
    assert torch.autograd.gradcheck(lambda e, *s: crf.log_partition(e, mask, Scores(*s)), inputs)


@pytest.mark.parametrize("value", [1e3, 1e4])
@pytest.mark.parametrize("seed", range(5))
def test_extreme_scores_stay_finite(value: float, seed: int) -> None:
    given = case(seed, [7, 3, 1], 5, forbidden=0.4)
    emissions = (value * given.emissions.sign()).float().requires_grad_()
    scores = Scores(*(s.float().requires_grad_() for s in given.scores))
    tags = crf.viterbi(emissions.detach(), given.mask, Scores(*(s.detach() for s in scores)))
    loss = crf.log_partition(emissions, given.mask, scores) - crf.path_score(
        emissions, tags, given.mask, scores
    )
    chances = crf.path_probabilities(emissions, tags, given.mask, scores)
    marginals = crf.marginals(emissions, given.mask, scores)
    (
        loss.sum() + sum(chance[given.mask].sum() for chance in chances) + marginals.square().sum()
    ).backward()
    for tensor in (loss, *chances, marginals, emissions.grad, *(s.grad for s in scores)):
        assert tensor is not None
        assert tensor.isfinite().all()


@pytest.mark.parametrize("spread", [10.0, 40.0])
@pytest.mark.parametrize("seed", range(6))
def test_single_precision_agrees_with_brute_force_at_any_spread(spread: float, seed: int) -> None:
    given = case(seed, [4, 2, 1], 4, forbidden=0.4)
    given = Case(spread * given.emissions, given.mask, given.scores)
    scored = [paths(given, i) for i in range(len(given.mask))]
    expected = torch.stack(
        [torch.tensor(list(s.values()), dtype=torch.float64).logsumexp(0) for s in scored]
    )
    found = crf.log_partition(
        given.emissions.float(), given.mask, Scores(*(s.float() for s in given.scores))
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("spread", [300.0, 1e5])
@everywhere
def test_sums_and_gradients_are_exact_however_far_scores_are_apart(
    given: Case, spread: float
) -> None:
    given = given._replace(emissions=spread * given.emissions)
    emissions = given.emissions.clone().requires_grad_()
    found = crf.log_partition(emissions, given.mask, given.scores)
    found.sum().backward()
    assert emissions.grad is not None
    for sentence, (paths_of, mask) in enumerate(zip(distributions(given), given.mask, strict=True)):
        scored = torch.tensor(list(paths(given, sentence).values()), dtype=torch.float64)
        torch.testing.assert_close(found[sentence], scored.logsumexp(0), rtol=1e-12, atol=1e-10)
        expected = torch.zeros_like(emissions[sentence])
        for path, probability in paths_of.items():
            expected[torch.arange(int(mask.sum())), list(path)] += probability
        torch.testing.assert_close(emissions.grad[sentence], expected, rtol=1e-6, atol=1e-8)


def test_the_only_legal_way_in_may_be_far_behind() -> None:
    ban = math.inf
    transitions = torch.tensor(
        [[0, 0, -ban], [0, 0, 0], [0, 0, 0]], dtype=torch.float64
    )  # O, B, I: no I after O
    scores = Scores(
        transitions,
        torch.tensor([0, 0, -ban], dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
    )
    emissions = torch.tensor([[[800, 0, 0], [0, 0, 2400]]], dtype=torch.float64).requires_grad_()
    found = crf.log_partition(emissions, torch.ones(1, 2, dtype=torch.bool), scores)
    found.sum().backward()
    assert found.item() == pytest.approx(2400)
    torch.testing.assert_close(
        emissions.grad, torch.tensor([[[0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    )


def test_a_sentence_without_tokens_has_one_path_which_is_empty() -> None:
    given = CASES[0]
    mask = given.mask.clone()
    mask[1] = False
    emissions = given.emissions.clone().requires_grad_()
    tags = torch.zeros_like(mask).long()
    found = (
        crf.log_partition(emissions, mask, given.scores),
        crf.path_score(emissions, tags, mask, given.scores),
    )
    assert found[0][1] == found[1][1] == 0
    chances = crf.path_probabilities(
        emissions, crf.viterbi(emissions, mask, given.scores), mask, given.scores
    )
    torch.stack([part.sum() for part in (*found, *chances)]).sum().backward()
    assert emissions.grad is not None and emissions.grad.isfinite().all()
    expected = crf.log_partition(given.emissions, given.mask, given.scores)
    torch.testing.assert_close(found[0][mask[:, 0]], expected[mask[:, 0]])
