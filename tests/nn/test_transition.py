"""Transitions against loops over the windows of each sentence."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.norms import BatchNorm, LayerNorm, RMSNorm
from residense.nn.transition import DenseTransition, PoolTransition, Transition

from .helpers import IN, LENGTHS, assert_rows, each, noise_like, sentences, shaken, unpadded

every_pool = pytest.mark.parametrize(
    ("pool", "stride"), [("none", 2), *product(["average", "max", "conv"], [2, 3])], ids=str
)


def pooled(transition: Any, words: Tensor) -> Tensor:
    """What a transition makes of one sentence without padding [L, D], window by window."""
    norm, squeeze, stride = transition.norm, transition.squeeze, transition.stride
    words = F.layer_norm(words, words.shape[-1:], norm.weight, norm.bias).relu()
    rows = []
    for start in range(0, len(words), stride):
        if transition.pool == "conv":
            around = [(k, start + k - 1) for k in range(3) if 0 <= start + k - 1 < len(words)]
            rows.append(
                squeeze.bias + sum(squeeze.weight[:, :, k] @ words[place] for k, place in around)
            )
            continue
        window = [squeeze.weight @ word + squeeze.bias for word in words[start : start + stride]]
        if transition.pool == "max":
            rows.append(torch.stack([max(values) for values in zip(*window, strict=True)]))
        else:
            rows.append(sum(window) / len(window))
    return torch.stack(rows)  # type: ignore[arg-type]


@every_pool
@pytest.mark.parametrize("longest", [0, 12])
def test_a_dense_transition_pools_each_sentence_by_itself(
    pool: Any, stride: int, longest: int
) -> None:
    transition = shaken(DenseTransition(IN, LayerNorm, 0.5, pool, stride).double())
    x, mask = sentences(dtype=torch.float64, longest=longest)
    y, left = transition(x, mask)
    step = 1 if pool == "none" else stride
    assert (transition.out_dim, transition.stride) == (6, step)
    assert y.shape == (len(x), math.ceil(mask.shape[1] / step), 6)
    assert left.dtype == torch.bool
    assert left.tolist() == [[j < math.ceil(n / step) for j in range(y.shape[1])] for n in LENGTHS]
    assert_rows(y, left, [pooled(transition, words) for words in each(x, mask)], 1e-10)


@every_pool
def test_a_dense_transition_of_a_sentence_does_not_depend_on_its_batch(
    pool: Any, stride: int
) -> None:
    transition = shaken(DenseTransition(IN, LayerNorm, 0.5, pool, stride))
    x, mask = sentences()
    y, left = transition(x, mask)
    for i, words in enumerate(each(x, mask)):
        alone, all_real = transition(words[None], unpadded(len(words)))
        assert all_real.all()
        torch.testing.assert_close(alone[0], y[i, left[i]], rtol=1e-5, atol=1e-5)


@every_pool
def test_gradients_of_a_transition_are_those_of_each_sentence(pool: Any, stride: int) -> None:
    transition = shaken(DenseTransition(IN, LayerNorm, 0.5, pool, stride).double())
    x, mask = sentences(dtype=torch.float64, longest=12)
    x.requires_grad_()
    y, left = transition(x, mask)
    inputs = [x, *transition.parameters()]
    found = torch.autograd.grad((y * noise_like(y))[left].sum(), inputs)
    rows = [pooled(transition, words) for words in each(x, mask)]
    losses = [
        (row * noise[: len(row)]).sum() for row, noise in zip(rows, noise_like(y), strict=True)
    ]
    expected = torch.autograd.grad(torch.stack(losses).sum(), inputs)
    for mine, right in zip(found, expected, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, right)


def test_a_transition_under_batch_norm_does_not_see_padding() -> None:
    torch.manual_seed(0)
    transition = DenseTransition(IN, pool="average", norm=BatchNorm)
    other = deepcopy(transition)
    x, mask = sentences()
    longer, longer_mask = sentences(longest=12)
    (y, left), (right, right_left) = transition(longer, longer_mask), other(x, mask)
    torch.testing.assert_close(y[left], right[right_left])
    torch.testing.assert_close(transition.norm.mean, other.norm.mean)


@pytest.mark.parametrize(("compression", "width"), [(0.5, 6), (0.3, 3), (0.01, 1), (1.0, 12)])
def test_compression_is_a_fraction_of_the_width(compression: float, width: int) -> None:
    transition, (x, mask) = DenseTransition(IN, LayerNorm, compression), sentences()
    y, same = transition(x, mask)
    assert transition.out_dim == y.shape[-1] == width
    assert same is mask


@pytest.mark.parametrize(
    ("make_transition", "message"),
    [
        (partial(DenseTransition, compression=0.0), "compression must be .*; got 0.0"),
        (partial(DenseTransition, compression=-0.5), "compression must be .*; got -0.5"),
        (partial(DenseTransition, compression=1.01), "above 0 and at most 1; got 1.01"),
        (partial(DenseTransition, pool="average", stride=0), "stride must be at least 1; got 0"),
        (partial(PoolTransition, stride=0), "stride must be at least 1; got 0"),
        (partial(PoolTransition, kernel=0), "kernel must be at least 1; got 0"),
    ],
)
def test_impossible_transitions_are_refused(
    make_transition: Callable[[int], Transition], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_transition(IN)


def test_a_transition_has_the_norm_of_the_encoder_unless_it_names_another() -> None:
    assert isinstance(DenseTransition(IN, BatchNorm).norm, BatchNorm)
    assert isinstance(DenseTransition(IN, BatchNorm, norm=RMSNorm).norm, RMSNorm)


# -- pooling alone ---------------------------------------------------------------------------------

pooling_windows = pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 2), (2, 2), (1, 2), (3, 1), (5, 3), (4, 2)]
)


def pooled_windows(words: Tensor, kind: str, kernel: int, stride: int) -> Tensor:
    """Pool one sentence without padding [L, D], around each `stride`-th token."""
    rows = []
    for center in range(0, len(words), stride):
        places = range(center - (kernel - 1) // 2, center + kernel // 2 + 1)
        window = torch.stack([words[place] for place in places if 0 <= place < len(words)])
        rows.append(window.amax(0) if kind == "max" else window.sum(0) / len(window))
    return torch.stack(rows)


@pytest.mark.parametrize("longest", [0, 12])
@pytest.mark.parametrize("kind", ["max", "average"])
@pooling_windows
def test_pooling_takes_the_real_tokens_of_each_window(
    kernel: int, stride: int, kind: Any, longest: int
) -> None:
    transition = PoolTransition(IN, LayerNorm, kind, kernel, stride)
    x, mask = sentences(dtype=torch.float64, longest=longest)
    x.requires_grad_()
    y, left = transition(x, mask)
    assert list(transition.parameters()) == []
    assert (transition.out_dim, transition.stride) == (IN, stride)
    assert y.shape == (len(x), math.ceil(mask.shape[1] / stride), IN)
    assert left.tolist() == [
        [j < math.ceil(n / stride) for j in range(y.shape[1])] for n in LENGTHS
    ]
    expected = [pooled_windows(words, kind, kernel, stride) for words in each(x, mask)]
    assert_rows(y, left, expected, 1e-12)
    noise = noise_like(y)
    losses = [(r * n[: len(r)]).sum() for r, n in zip(expected, noise, strict=True)]
    (right,) = torch.autograd.grad(torch.stack(losses).sum(), x, retain_graph=True)
    (found,) = torch.autograd.grad((y * noise)[left].sum(), x)
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_is_that_of_torch_at_each_sentence_by_itself(kind: Any) -> None:
    other = {
        "max": nn.MaxPool1d(3, 2, padding=1),
        "average": nn.AvgPool1d(3, 2, padding=1, count_include_pad=False),
    }[kind]
    x, mask = sentences()
    y, left = PoolTransition(IN, pool=kind)(x, mask)
    assert_rows(y, left, [other(words.T).T for words in each(x, mask)])


@pytest.mark.parametrize("junk", [math.inf, -math.inf, math.nan])
def test_maxima_do_not_see_what_is_at_padding(junk: float) -> None:
    x, mask = sentences(longest=12)
    y, _ = PoolTransition(IN)(x, mask)
    found, _ = PoolTransition(IN)(x.masked_fill(~mask[..., None], junk), mask)
    assert torch.equal(found, y)
    assert y.isfinite().all()
