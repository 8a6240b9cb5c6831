"""Encoders are compiled once for all shapes, forward and backward."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from residense.nn.blocks import Attention, FeedForward
from residense.nn.branch import Branch
from residense.nn.connections import (
    Residual,
)
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm
from residense.nn.transition import DenseTransition, PoolTransition, TransitionFactory

from .grid import cells, make, traceable, two_blocks
from .helpers import DIM, IN, gradients, random_batch

SHAPES = [(3, 5), (4, 7), (2, 4), (5, 9), (2, 2), (3, 6)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, right in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)


class Backend:
    """A backend that counts the graphs it is given."""

    def __init__(self, inner: Callable[..., Any] | None = None):
        self.inner = inner
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward if self.inner is None else self.inner(graph, inputs)


@pytest.fixture(autouse=True)
def _forget_compilations() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def assert_compiles_once(
    encoder: Encoder, backend: Backend, shapes: list[tuple[int, int]] = SHAPES
) -> None:
    compiled: Any = torch.compile(encoder, fullgraph=True, dynamic=True, backend=backend)
    graphs = []
    shapes = [shape for shape in shapes if shape[1] > encoder.stride]  # 1 position is a case apart
    for shape in shapes:
        x, mask = random_batch(*shape)
        torch.manual_seed(7)
        found = gradients(encoder, compiled, x, mask)
        torch.manual_seed(7)
        assert_same(found, gradients(encoder, encoder, x, mask))
        graphs.append(backend.graphs)
    assert graphs[0] > 0
    assert graphs == graphs[:1] * len(shapes)


@pytest.mark.parametrize(
    ("block", "connection"),
    [
        ("conv", "residual"),
        ("conv", "dense"),
        ("conv", "hyper"),
        ("conv", "gated"),
        ("transformer", "multiway"),
        ("resnet", "strided projected"),
    ],
)
def test_one_graph_serves_all_shapes(block: str, connection: str) -> None:
    backend = Backend()
    encoder = make(block, connection, two_blocks(block))
    assert_compiles_once(encoder, backend, SHAPES[:3])
    assert backend.graphs == 1


@pytest.mark.parametrize("block", ["relative", "decoder"])
def test_one_graph_serves_all_shapes_under_attention(block: str) -> None:
    assert_compiles_once(make(block, "residual", 1), Backend(), SHAPES[:4])


@pytest.mark.parametrize("connection", ["residual", "dense"])
def test_one_graph_serves_all_shapes_under_checkpointing(connection: str) -> None:
    encoder = make("conv", connection, activation_checkpointing=True)
    assert_compiles_once(encoder, Backend(), SHAPES[:3])


@pytest.mark.parametrize(
    "transition",
    [partial(DenseTransition, pool="max"), pytest.param(PoolTransition, marks=pytest.mark.slow)],
)
def test_one_graph_serves_all_shapes_of_pooled_stages(transition: TransitionFactory) -> None:
    branch = partial(Branch, norm="peri", scale="layer_scale", dropout=0.2, drop_path=0.2)
    options = {"transition": transition, "branch": branch, "norm": BatchNorm}
    encoder = make("conv", "residual", [1, 1], **options)
    assert_compiles_once(encoder, Backend(), [(3, 5), (4, 7), (3, 6)])


@pytest.mark.slow
@cells(traceable, traceable)
def test_one_compilation_serves_all_shapes_forward_and_backward(
    block: str, connection: str
) -> None:
    encoder = make(block, connection, two_blocks(block))
    assert_compiles_once(encoder, Backend(aot_eager), SHAPES[:4])


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["residual", "dense", "hyper", "multiway"])
def test_checkpointed_blocks_are_compiled_with_their_dropout(connection: str) -> None:
    branch = partial(Branch, dropout=0.3, drop_path=0.3)
    encoder = make("conv", connection, branch=branch, activation_checkpointing=True)
    assert_compiles_once(encoder, Backend(aot_eager), SHAPES[:3])


@pytest.mark.slow
def test_dropout_inside_blocks_is_compiled() -> None:
    block = [partial(Attention, heads=2, dropout=0.3), partial(FeedForward, dropout=0.3)]
    torch.manual_seed(0)
    encoder = Encoder(IN, block, Residual, 2, DIM)
    assert_compiles_once(encoder, Backend(aot_eager), SHAPES[:3])


@pytest.mark.slow
def test_the_compiler_of_torch_gives_the_same_numbers() -> None:
    encoder = make("conv", "dense")
    compiled = make("conv", "dense")
    compiled.compile(fullgraph=True, dynamic=True)
    for shape in SHAPES[:2]:
        x, mask = random_batch(*shape)
        assert_same(gradients(compiled, compiled, x, mask), gradients(encoder, encoder, x, mask))
