"""Norms against those of torch; padding is never seen."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from residense.nn.norms import BatchNorm, LayerNorm, NoNorm, RMSNorm

from .helpers import IN, LENGTHS, noise_like, sentences, shaken


def test_norms_of_single_tokens_are_those_of_torch() -> None:
    x, mask = sentences()
    layer, rms = shaken(LayerNorm(IN)), shaken(RMSNorm(IN))
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt() * layer.weight + layer.bias
    torch.testing.assert_close(layer(x, mask), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x, mask), F.layer_norm(x, (IN,), layer.weight, layer.bias))
    expected = x / x.square().mean(-1, keepdim=True).sqrt() * rms.weight
    torch.testing.assert_close(rms(x, mask), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(rms(x, mask), F.rms_norm(x, (IN,), rms.weight))


def test_no_norm_is_the_identity() -> None:
    x, mask = sentences()
    norm = NoNorm(IN)
    assert norm(x, mask) is x
    assert list(norm.parameters()) == []


@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.4, 0.1)])
def test_batch_norm_is_that_of_torch_on_the_real_tokens(momentum: float, eps: float) -> None:
    norm = shaken(BatchNorm(IN, momentum, eps).double())
    other = nn.BatchNorm1d(IN, eps, momentum).double()
    with torch.no_grad():
        other.weight.copy_(norm.weight)
        other.bias.copy_(norm.bias)
    assert other.running_mean is not None
    assert other.running_var is not None
    for shift in (0.0, 3.0):
        x, mask = sentences(dtype=torch.float64)
        mine, theirs = (x + shift).requires_grad_(), (x + shift)[mask].requires_grad_()
        found, expected = norm(mine, mask)[mask], other(theirs)
        torch.testing.assert_close(found, expected)
        (found * noise_like(found)).sum().backward()
        (expected * noise_like(found)).sum().backward()
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad[mask], theirs.grad)
        assert not mine.grad[~mask].any()
        for name in ("weight", "bias"):
            torch.testing.assert_close(
                norm.get_parameter(name).grad, other.get_parameter(name).grad
            )
        torch.testing.assert_close(norm.mean, other.running_mean)
        torch.testing.assert_close(norm.variance, other.running_var)
    norm.eval()
    other.eval()
    before = norm.mean.clone()
    torch.testing.assert_close(norm(x, mask)[mask], other(x[mask]))
    assert torch.equal(norm.mean, before)


@pytest.mark.parametrize("junk", [0.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_does_not_see_what_is_at_padding(junk: float, training: bool) -> None:
    x, mask = sentences()
    norm, other = BatchNorm(IN).train(training), BatchNorm(IN).train(training)
    expected = other(x, mask)[mask]
    assert torch.equal(norm(x.masked_fill(~mask[..., None], junk), mask)[mask], expected)
    assert expected.isfinite().all()
    assert torch.equal(norm.mean, other.mean)
    assert torch.equal(norm.variance, other.variance)
    assert bool(norm.mean.any()) == training


@pytest.mark.parametrize("more", [1, 5])
def test_batch_norm_does_not_see_how_much_padding_there_is(more: int) -> None:
    norm, other = BatchNorm(IN), BatchNorm(IN)
    x, mask = sentences()
    longer, longer_mask = sentences(longest=max(LENGTHS) + more)
    torch.testing.assert_close(norm(longer, longer_mask)[longer_mask], other(x, mask)[mask])
    torch.testing.assert_close(norm.mean, other.mean)
    torch.testing.assert_close(norm.variance, other.variance)


def test_batch_norm_of_one_token_is_its_bias() -> None:
    norm = shaken(BatchNorm(IN))
    x, mask = sentences(lengths=(1,), longest=3)
    x.requires_grad_()
    y = norm(x, mask)[mask]
    torch.testing.assert_close(y, norm.bias[None])
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(norm.mean, 0.1 * x[0, 0])
    torch.testing.assert_close(norm.variance, torch.full((IN,), 0.9))


def test_batch_norm_keeps_its_statistics_where_there_is_no_token() -> None:
    norm = shaken(BatchNorm(IN))
    x, mask = sentences()
    norm(x, mask)
    mean, variance = norm.mean.clone(), norm.variance.clone()
    x.requires_grad_()
    y = norm(x, torch.zeros_like(mask))
    y.sum().backward()
    assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
    assert torch.equal(norm.mean, mean) and torch.equal(norm.variance, variance)
