"""Encoders under automatic mixed precision."""

import statistics
from functools import partial
from typing import Any

import pytest
import torch

from residense.nn.encoder import Encoder
from residense.nn.transition import PoolTransition

from .grid import cells, make
from .helpers import gradients, random_batch


def fast(block: str, connection: str) -> bool:
    return block in ("conv", "transformer") or connection in ("residual", "dense")


def deviations(encoder: Encoder) -> tuple[float, float, float]:
    """Relative errors under bfloat16 of values, gradients of the input and gradients of parameters."""
    x, mask = random_batch(8, 9)
    expected, dx, *parameters = gradients(encoder, encoder, x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found, near_dx, *near = gradients(encoder, encoder, x, mask)
    assert all(values.isfinite().all() for values in (found, near_dx, *near))
    whole = torch.cat([grad.flatten() for grad in parameters])
    near_whole = torch.cat([grad.flatten() for grad in near])
    pairs = ((found, expected), (near_dx, dx), (near_whole, whole))
    values, inputs, weights = (float((a - b).norm() / b.norm()) for a, b in pairs)
    return values, inputs, weights


def assert_close_to_single(encoders: list[Encoder]) -> None:
    """Values and gradients are near those in single precision, in the median over encoders.

    A single one can be off where a unit of a ReLU or of a maximum changes sides.
    """
    values, inputs, weights = (
        statistics.median(column)
        for column in zip(*(deviations(encoder) for encoder in encoders), strict=True)
    )
    assert values < 0.04
    assert inputs < 0.4
    assert weights < 0.4


@cells(fast)
def test_half_precision_stays_close_to_single(block: str, connection: str) -> None:
    assert_close_to_single([make(block, connection, 3, seed) for seed in range(3)])


@pytest.mark.parametrize("connection", ["residual", "strided projected"])
@pytest.mark.parametrize("pool", ["max", "average"])
def test_half_precision_of_pooled_stages_stays_close_to_single(pool: Any, connection: str) -> None:
    transition = partial(PoolTransition, pool=pool)
    encoders = [make("conv", connection, [1, 1], seed, transition=transition) for seed in range(3)]
    assert_close_to_single(encoders)
