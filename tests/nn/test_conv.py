"""Convolutions against sums over windows, written out."""

import math
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residense.nn.blocks import Conv

from .helpers import DIM, IN, assert_rows, each, noise_like, sentences, shaken


def window_sums(words: Tensor, weight: Tensor, dilation: int) -> Tensor:
    sums = torch.zeros(len(words), len(weight), dtype=words.dtype)
    for t, k in product(range(len(words)), range(weight.shape[-1])):
        place = t + dilation * (k - weight.shape[-1] // 2)
        if 0 <= place < len(words):
            sums[t] += weight[:, :, k] @ words[place]
    return sums


def activated(name: str, y: Tensor) -> Tensor:
    if name == "glu":
        half = y.shape[-1] // 2
        return y[:, :half] * y[:, half:].sigmoid()
    return {"relu": y.clamp(min=0), "gelu": y * (1 + torch.erf(y / math.sqrt(2))) / 2, "none": y}[
        name
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "none", "glu"])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 2)])
def test_a_convolution_adds_up_its_window(
    activation: Any, kernel: int, dilation: int, order: Any, separable: bool, bias: bool
) -> None:
    make = partial(Conv, IN, 6, kernel, dilation, activation, order, separable, bias)
    if activation == "glu" and order == "before":
        with pytest.raises(
            ValueError, match="glu gates the output of the convolution: use order: after"
        ):
            make()
        return
    block = shaken(make().double())
    x, mask = sentences(dtype=torch.float64)
    if separable:
        channels, width = block.conv
        assert channels.bias is None
        taps = [width.weight[:, :, 0] @ torch.diag(channels.weight[:, 0, k]) for k in range(kernel)]
        weight, offset = torch.stack(taps, -1), width.bias
    else:
        weight, offset = block.conv.weight, block.conv.bias
    assert (offset is not None) == bias
    expected = []
    for words in each(x, mask):
        words = activated(activation, words) if order == "before" else words
        sums = window_sums(words, weight, dilation) + (offset if bias else 0)
        expected.append(sums if order == "before" else activated(activation, sums))
    assert_rows(block(x, mask=mask), mask, expected, 1e-12)


def test_a_separable_convolution_has_fewer_weights() -> None:
    full, separable = (Conv(IN, DIM, kernel=5, separable=flag) for flag in (False, True))
    assert sum(p.numel() for p in full.parameters()) == 5 * IN * DIM + DIM
    assert sum(p.numel() for p in separable.parameters()) == 5 * IN + IN * DIM + DIM


def causal_sums(words: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Sums over windows that end at their token."""
    kernel = weight.shape[-1]
    sums = torch.zeros(len(words), len(weight), dtype=words.dtype)
    for t, k in product(range(len(words)), range(kernel)):
        place = t - dilation * (kernel - 1 - k)
        if place >= 0:
            sums[t] += weight[:, :, k] @ words[place]
    return sums


def taps(block: Any) -> tuple[Tensor, Tensor]:
    """The weights of a convolution [out, in, kernel] and its bias, also of a separable one."""
    conv: Any = block.conv
    if isinstance(conv, nn.Conv1d):
        return conv.weight, conv.bias  # type: ignore[return-value]
    channels, width = conv
    return torch.einsum("oi,ik->oik", width.weight[:, :, 0], channels.weight[:, 0]), width.bias


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "glu"])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 2)])
def test_a_window_of_a_causal_convolution_ends_at_its_token(
    kernel: int, dilation: int, activation: Any, separable: bool
) -> None:
    block = Conv(IN, 6, kernel, dilation, activation, separable=separable, causal=True)
    block = shaken(block.double())
    x, mask = sentences(dtype=torch.float64)
    weight, bias = taps(block)
    expected = [
        activated(activation, causal_sums(words, weight, dilation) + bias)
        for words in each(x, mask)
    ]
    assert_rows(block(x, mask=mask), mask, expected, 1e-12)


@pytest.mark.parametrize("longest", [0, 12])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("stride", [2, 3])
def test_a_strided_convolution_keeps_the_windows_of_each_stride_th_token(
    stride: int,
    kernel: int,
    dilation: int,
    order: Any,
    causal: bool,
    separable: bool,
    longest: int,
) -> None:
    block = Conv(IN, 6, kernel, dilation, "relu", order, separable, causal=causal, stride=stride)
    block = shaken(block.double())
    x, mask = sentences(dtype=torch.float64, longest=longest)
    weight, bias = taps(block)
    sums = causal_sums if causal else window_sums
    expected = []
    for words in each(x, mask):
        words = words.clamp(min=0) if order == "before" else words
        kept = sums(words, weight, dilation)[::stride] + bias
        expected.append(kept if order == "before" else kept.clamp(min=0))
    y = block(x, mask=mask)
    assert y.shape == (len(x), math.ceil(mask.shape[1] / stride), 6)
    assert_rows(y, mask[:, ::stride], expected, 1e-12)


def test_gradients_of_a_strided_convolution_reach_every_token_but_no_padding() -> None:
    block = shaken(Conv(IN, 6, activation="none", stride=2))
    x, mask = sentences()
    x.requires_grad_()
    y = block(x, mask=mask)
    (y * noise_like(y))[mask[:, ::2]].sum().backward()
    assert x.grad is not None
    assert x.grad[mask].any(-1).all()
    assert not x.grad[~mask].any()
