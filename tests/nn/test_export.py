"""Encoders can be exported for all shapes."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.export import Dim, export

from residense.nn.blocks import GRU, LSTM
from residense.nn.connections import (
    Residual,
)
from residense.nn.encoder import Encoder
from residense.nn.transition import DenseTransition, PoolTransition, TransitionFactory

from .grid import cells, make, traceable, two_blocks
from .helpers import DIM, IN, random_batch

SHAPES = [(4, 7), (2, 2), (5, 9), (3, 6), (1, 1), (1, 4), (6, 1)]


@torch.no_grad()
def assert_exports(encoder: Encoder) -> None:
    """Export with one shape, run with others."""
    stride = encoder.stride
    # torch must know that more than one position is left, and rounds lengths at run time
    shapes = SHAPES if stride == 1 else [(2, stride + 1), (4, 2 * stride), (1, 4 * stride + 3)]
    dynamic = {0: Dim("batch"), 1: Dim("length", min=stride + 1 if stride > 1 else None)}
    program: Any = export(
        encoder.eval(),
        random_batch(3, 3 * stride + 2),
        dynamic_shapes=(dynamic, dynamic),
        prefer_deferred_runtime_asserts_over_guards=stride > 1,
    ).module()
    for shape in shapes:
        x, mask = random_batch(*shape)
        (found, left), (expected, right) = program(x, mask), encoder(x, mask)
        assert torch.equal(left, right)
        torch.testing.assert_close(found[left], expected[left], rtol=1e-5, atol=1e-5)


FAST = [
    ("conv", "residual"),
    ("conv", "dense"),
    ("conv", "hyper"),
    ("relative", "residual behind a conv stem"),
    ("decoder", "residual"),
    ("resnet", "strided projected"),
]


@cells(lambda *cell: cell in FAST, traceable)
def test_an_exported_encoder_takes_all_shapes(block: str, connection: str) -> None:
    assert_exports(make(block, connection, two_blocks(block)))


@pytest.mark.parametrize(
    "transition",
    [
        PoolTransition,
        pytest.param(partial(DenseTransition, pool="average"), marks=pytest.mark.slow),
        pytest.param(partial(PoolTransition, pool="average"), marks=pytest.mark.slow),
        pytest.param(partial(DenseTransition, pool="max", stride=3), marks=pytest.mark.slow),
        pytest.param(partial(DenseTransition, pool="conv"), marks=pytest.mark.slow),
    ],
)
def test_an_exported_encoder_pools_all_shapes(transition: TransitionFactory) -> None:
    assert_exports(make("conv", "strided projected", [1, 1], transition=transition))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_recurrent_encoders_can_be_exported_for_one_shape(
    kind: type[LSTM | GRU], bidirectional: bool
) -> None:
    torch.manual_seed(0)
    encoder = Encoder(IN, partial(kind, bidirectional=bidirectional), Residual, 2, DIM).eval()
    program: Any = export(
        encoder, (torch.randn(3, 5, IN), torch.ones(3, 5, dtype=torch.bool))
    ).module()
    x, mask = random_batch(3, 5)
    torch.testing.assert_close(
        program(x, mask)[0][mask], encoder(x, mask)[0][mask], rtol=1e-5, atol=1e-5
    )
