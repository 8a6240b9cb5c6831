"""Blocks in a row that count as one."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from residense.nn.blocks import Attention, Conv, FeedForward, Sequential
from residense.nn.norms import BatchNorm, LayerNorm, NormFactory, RMSNorm

from .helpers import DIM, IN, assert_rows, each, sentences, shaken, unpadded


@pytest.mark.parametrize("norm", [None, LayerNorm, RMSNorm])
def test_blocks_run_in_a_row_with_a_norm_after_each(norm: NormFactory | None) -> None:
    block = shaken(Sequential(IN, DIM, [Conv, partial(Attention, heads=2), FeedForward], norm))
    x, mask = sentences()
    assert [(type(b), b.in_dim, b.out_dim) for b in block.blocks] == [
        (Conv, IN, DIM),
        (Attention, DIM, DIM),
        (FeedForward, DIM, DIM),
    ]
    y = x
    for inner, layer in zip(block.blocks, block.norms, strict=True):
        y = inner(y, mask=mask)
        if norm is LayerNorm:
            y = F.layer_norm(y, (DIM,), layer.weight, layer.bias)
        elif norm is RMSNorm:
            y = F.rms_norm(y, (DIM,), layer.weight)
    assert torch.equal(block(x, mask=mask)[mask], y[mask])


def test_batch_norm_between_convolutions_sees_real_tokens_only() -> None:
    torch.manual_seed(0)
    block: Any = Sequential(
        IN, DIM, [partial(Conv, activation="none", bias=False), Conv], BatchNorm
    )
    x, mask = sentences()
    y = block.blocks[0](x, mask=mask)
    real = F.batch_norm(y[mask], None, None, training=True)
    y = block.blocks[1](torch.zeros_like(y).masked_scatter(mask[..., None], real), mask=mask)
    expected = F.batch_norm(y[mask], None, None, training=True)
    torch.testing.assert_close(block(x, mask=mask)[mask], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("gelu", F.gelu)])
@pytest.mark.parametrize("norm", [None, LayerNorm])
def test_an_activation_follows_each_norm(
    norm: NormFactory | None, activation: Any, function: Callable[[Tensor], Tensor]
) -> None:
    linear = partial(Conv, activation="none")
    block = shaken(Sequential(IN, DIM, [linear, linear], norm, activation))
    x, mask = sentences()
    y = x
    for inner, layer in zip(block.blocks, block.norms, strict=True):
        y = inner(y, mask=mask)
        if norm:
            y = F.layer_norm(y, (DIM,), layer.weight, layer.bias)
        y = function(y)
    assert torch.equal(block(x, mask=mask)[mask], y[mask])


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("longest", [0, 12])
def test_the_first_block_shortens_the_sequence(longest: int, stride: int) -> None:
    block = shaken(Sequential(IN, DIM, [Conv, Conv], LayerNorm, "relu", stride).double())
    x, mask = sentences(dtype=torch.float64, longest=longest)
    first, second = block.blocks
    assert (first.conv.stride, second.conv.stride) == ((stride,), (1,))
    expected = []
    for words in each(x, mask):
        y = words[None]
        for inner, layer in zip(block.blocks, block.norms, strict=True):
            y = inner(y, mask=unpadded(y.shape[1]))
            y = F.layer_norm(y, (DIM,), layer.weight, layer.bias).relu()
        expected.append(y[0])
    y = block(x, mask=mask)
    assert y.shape == (len(x), math.ceil(mask.shape[1] / stride), DIM)
    assert_rows(y, mask[:, ::stride], expected, 1e-10)


def test_batch_norm_behind_a_stride_sees_the_positions_that_are_left() -> None:
    torch.manual_seed(0)
    block: Any = Sequential(IN, DIM, [partial(Conv, activation="none")], BatchNorm, stride=2)
    x, mask = sentences()
    left = mask[:, ::2]
    y = block.blocks[0](x, mask=mask)[left]
    expected = F.batch_norm(y, None, None, training=True)
    torch.testing.assert_close(block(x, mask=mask)[left], expected, rtol=1e-4, atol=1e-5)


def test_a_sequence_of_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential needs at least one block"):
        Sequential(IN, DIM, [])


def test_a_stride_needs_a_first_block_that_takes_one() -> None:
    with pytest.raises(TypeError, match="stride"):
        Sequential(IN, DIM, [FeedForward, Conv], stride=2)
