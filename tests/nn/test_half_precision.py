"""Encoders under automatic mixed precision."""

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


def assert_close_to_single(encoder: Encoder) -> None:
    """Values and gradients under bfloat16 are finite and near those in single precision."""
    x, mask = random_batch(8, 9)
    expected, dx, *parameters = gradients(encoder, encoder, x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found, near_dx, *near = gradients(encoder, encoder, x, mask)
    assert all(values.isfinite().all() for values in (found, near_dx, *near))
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert (near_dx - dx).norm() < 0.3 * dx.norm()
    whole = torch.cat([grad.flatten() for grad in parameters])
    near_whole = torch.cat([grad.flatten() for grad in near])
    assert (near_whole - whole).norm() < 0.3 * whole.norm()


@cells(fast)
def test_half_precision_stays_close_to_single(block: str, connection: str) -> None:
    assert_close_to_single(make(block, connection, 3))


@pytest.mark.parametrize("connection", ["residual", "strided projected"])
@pytest.mark.parametrize("pool", ["max", "average"])
def test_half_precision_of_pooled_stages_stays_close_to_single(pool: Any, connection: str) -> None:
    transition = partial(PoolTransition, pool=pool)
    assert_close_to_single(make("conv", connection, [1, 1], transition=transition))
