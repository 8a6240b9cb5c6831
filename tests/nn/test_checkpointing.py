"""Activation checkpointing changes neither values nor gradients."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch

from residense.nn.blocks import GRU, LSTM, Attention, BlockFactory, Conv, FeedForward, Sequential
from residense.nn.branch import Branch
from residense.nn.connections import (
    Dense,
    PostNorm,
    Residual,
)
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm, RMSNorm

from .grid import cells, make, of_blocks
from .helpers import DIM, IN, blocks_of, noise_like, sentences


def fast(block: str, connection: str) -> bool:
    return block == "conv" or connection in ("residual", "dense", "multiway")


@cells(fast, of_blocks("conv", "transformer", "resnet"))
def test_checkpointing_changes_neither_values_nor_gradients(block: str, connection: str) -> None:
    norm = "scaled" if connection == "scaled norm" else "pre"
    branch = partial(Branch, norm=norm, dropout=0.3, drop_path=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # drop path under Plain
        encoder: Any = make(block, connection, [2, 1], branch=branch)
    other = deepcopy(encoder)
    for stage in other.stages:
        stage.activation_checkpointing = True
    x, mask = sentences()
    results = []
    for one in (encoder, other):
        torch.manual_seed(7)
        rows = x.clone().requires_grad_()
        y, left = one(rows, mask)
        (y * noise_like(y))[left].sum().backward()
        results.append([y, rows.grad, *(p.grad for p in one.parameters())])
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert torch.equal(encoder.eval()(x, mask)[0], other.eval()(x, mask)[0])


relative = partial(Attention, heads=2, positions="relative")
dropping = partial(Attention, heads=2, dropout=0.3, causal=True)


@pytest.mark.parametrize(
    "block",
    [
        LSTM,
        GRU,
        relative,
        dropping,
        partial(FeedForward, dropout=0.3),
        partial(Sequential, blocks=[Conv, FeedForward], norm=RMSNorm),
    ],
)
@pytest.mark.parametrize("tie", [False, True])
def test_each_block_runs_once_more_in_the_backward_pass(block: BlockFactory, tie: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(
            DIM, block, Residual, 3, DIM, tie_weights=tie, activation_checkpointing=checkpointing
        )
        calls: list[int] = []
        blocks_of(encoder)[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        x, mask = sentences(DIM)
        torch.manual_seed(7)
        y, _ = encoder(x, mask)
        (y * noise_like(y))[mask].sum().backward()
        gradients.append([y, *(p.grad for p in encoder.parameters())])
        assert len(calls) == (3 if tie else 1) * (2 if checkpointing else 1)
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "make_encoder",
    [
        partial(Encoder, IN, Conv, Residual, 2, DIM, partial(Branch, norm_type=BatchNorm)),
        partial(Encoder, IN, partial(Sequential, blocks=[Conv], norm=BatchNorm), Residual, 2, DIM),
        partial(Encoder, IN, Conv, partial(Dense, norm=BatchNorm), 2, DIM),
        partial(Encoder, IN, Conv, partial(PostNorm, norm=BatchNorm), 2, DIM),
        partial(Encoder, IN, Conv, Residual, 2, DIM, norm=BatchNorm),
    ],
    ids=["branch", "sequential", "dense", "stream", "encoder"],
)
def test_checkpointing_is_refused_where_batches_would_count_twice(
    make_encoder: Callable[..., Encoder],
) -> None:
    make_encoder()
    with pytest.raises(
        ValueError,
        match="activation_checkpointing would count each batch twice in the statistics of BatchNorm",
    ):
        make_encoder(activation_checkpointing=True)
