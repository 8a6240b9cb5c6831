"""What encoders promise to whoever runs them at scale: half precision, one compilation, an export, and little memory.

Every connection is held to it, with convolutions, attention and chains; recurrent blocks where torch can trace them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.export import Dim, export
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from residense.nn.blocks import GRU, LSTM, Attention, BlockFactory, Chain, Conv, FeedForward
from residense.nn.connections import (
    AttentionResiduals,
    Dense,
    DepthWeighted,
    DualPath,
    Highway,
    HyperConnections,
    ManifoldConstrainedHyperConnections,
    MultiwayDynamicDense,
    Plain,
    Residual,
    UNetSkips,
)
from residense.nn.encoder import Branch, ConnectionFactory, Encoder
from residense.nn.norms import BatchNorm
from residense.nn.transition import Transition

IN, DIM = 12, 16
CONNECTIONS: dict[str, ConnectionFactory] = {
    "plain": Plain,
    "residual": Residual,
    "post": partial(Residual, norm="post"),
    "highway": Highway,
    "unet": UNetSkips,
    "dense": partial(Dense, growth_rate=8, bottleneck=2),
    "bare dense": partial(Dense, growth_rate=8, bottleneck=0),
    "dual path": partial(DualPath, growth_rate=8),
    "depth weighted": DepthWeighted,
    "attention residuals": AttentionResiduals,
    "attention over sums": partial(AttentionResiduals, span=2),
    "multiway": MultiwayDynamicDense,
    "hyper": partial(HyperConnections, streams=2),
    "static hyper": partial(HyperConnections, streams=2, dynamic=False),
    "permutations": partial(ManifoldConstrainedHyperConnections, streams=3),
    "sinkhorn": partial(
        ManifoldConstrainedHyperConnections, streams=3, mixing="sinkhorn", iterations=3
    ),
}
attention, relative = (
    partial(Attention, heads=2, positions=positions) for positions in ("rotary", "relative")
)
BLOCKS: dict[str, BlockFactory | list[BlockFactory]] = {
    "conv": Conv,
    "transformer": [attention, FeedForward],
    "relative": partial(Chain, blocks=[relative, FeedForward]),
    "lstm": LSTM,
    "mixed": [Conv, attention],
}
SHAPES = [(3, 5), (4, 7), (2, 2), (5, 9), (3, 6)]

every_connection = pytest.mark.parametrize("connection", CONNECTIONS)
# the others with every block, in the slow tests
some_connections = pytest.mark.parametrize(
    "connection", ["residual", "dense", "multiway", "hyper", "permutations"]
)
every_traceable_block = pytest.mark.parametrize("block", ["conv", "transformer", "relative"])


def make(block: str, connection: str, depth: int | list[int] = 2, **options: Any) -> Encoder:
    torch.manual_seed(0)
    options = {"branch": partial(Branch, dropout=0.0)} | options
    return Encoder(IN, BLOCKS[block], CONNECTIONS[connection], depth, DIM, **options)


def sentences(size: int, length: int, width: int = IN) -> tuple[Tensor, Tensor]:
    """Random sentences, one of which is the longest and one of which has a single token, and their mask."""
    source = torch.Generator().manual_seed(100 * size + length)
    lengths = torch.randint(1, length + 1, (size,), generator=source)
    lengths[0], lengths[-1] = 1, length
    return torch.randn(size, length, width, generator=source), torch.arange(length) < lengths[
        :, None
    ]


def gradients(
    encoder: nn.Module, run: Callable[..., tuple[Tensor, Tensor]], x: Tensor, mask: Tensor
) -> list[Tensor]:
    """What comes out at real tokens, and the gradients of a random projection of it."""
    encoder.zero_grad()
    x = x.clone().requires_grad_()
    y, left = run(x, mask)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    (y.float() * noise)[left].sum().backward()
    grads = [p.grad for p in encoder.parameters()]
    assert x.grad is not None
    assert all(grad is not None for grad in grads)
    return [y[left].detach(), x.grad, *(grad.clone() for grad in grads if grad is not None)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, right in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)


# -- half precision ----------------------------------------------------------------------------------------------------


@every_connection
@pytest.mark.parametrize("block", ["conv", "lstm", "transformer", "relative"])
def test_half_precision_stays_close_to_single(block: str, connection: str) -> None:
    encoder = make(block, connection, 3)
    x, mask = sentences(8, 9)
    expected, dx, *parameters = gradients(encoder, encoder, x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found, near_dx, *near = gradients(encoder, encoder, x, mask)
    assert all(number.isfinite().all() for number in (found, near_dx, *near))
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert (near_dx - dx).norm() < 0.3 * dx.norm()
    whole, near_whole = (
        torch.cat([grad.flatten() for grad in grads]) for grads in (parameters, near)
    )
    assert (near_whole - whole).norm() < 0.3 * whole.norm()


# -- compilation -------------------------------------------------------------------------------------------------------


class Backend:
    """A backend that counts the graphs it is given."""

    def __init__(self, inner: Callable[..., Any] | None = None):
        self.inner, self.graphs = inner, 0

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
    for shape in shapes:
        x, mask = sentences(*shape)
        torch.manual_seed(7)
        found = gradients(encoder, compiled, x, mask)
        torch.manual_seed(7)
        assert_same(found, gradients(encoder, encoder, x, mask))
        graphs.append(backend.graphs)
    assert graphs[0] > 0
    assert graphs == graphs[:1] * len(shapes)


@some_connections
def test_one_graph_serves_all_shapes(connection: str) -> None:
    backend = Backend()
    assert_compiles_once(make("mixed", connection), backend, SHAPES[:3])
    assert backend.graphs == 1


def test_one_graph_serves_all_shapes_under_relative_attention() -> None:
    assert_compiles_once(make("relative", "residual"), Backend())


@pytest.mark.parametrize("connection", ["residual", "dense"])
def test_one_graph_serves_all_shapes_while_blocks_are_recomputed(connection: str) -> None:
    assert_compiles_once(make("conv", connection, recompute=True), Backend(), SHAPES[:3])


def test_one_graph_serves_all_shapes_of_pooled_stages() -> None:
    transition = partial(Transition, pool="max")
    branch = partial(
        Branch, norm="peri", norm_type=BatchNorm, scale="layer_scale", dropout=0.2, drop_path=0.2
    )
    encoder = make("conv", "residual", [1, 1], transition=transition, branch=branch)
    assert_compiles_once(encoder, Backend(), [(3, 5), (4, 7), (3, 6)])


@pytest.mark.slow
@every_connection
@every_traceable_block
def test_one_compilation_serves_all_shapes_forward_and_backward(
    block: str, connection: str
) -> None:
    assert_compiles_once(make(block, connection), Backend(aot_eager))


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["residual", "dense", "hyper", "multiway"])
def test_recomputed_blocks_are_compiled_with_their_dropout(connection: str) -> None:
    encoder = make(
        "conv", connection, branch=partial(Branch, dropout=0.3, drop_path=0.3), recompute=True
    )
    assert_compiles_once(encoder, Backend(aot_eager), SHAPES[:3])


@pytest.mark.slow
def test_the_compiler_of_torch_gives_the_same_numbers() -> None:
    encoder, compiled = make("conv", "dense"), make("conv", "dense")
    compiled.compile(fullgraph=True, dynamic=True)
    for shape in SHAPES[:2]:
        x, mask = sentences(*shape)
        assert_same(gradients(compiled, compiled, x, mask), gradients(encoder, encoder, x, mask))


# -- export ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def assert_exports(encoder: Encoder) -> None:
    encoder.eval()
    dynamic = {0: Dim("batch"), 1: Dim("length")}
    program: Any = export(encoder, sentences(3, 5), dynamic_shapes=(dynamic, dynamic)).module()
    for shape in [*SHAPES, (1, 1), (1, 4), (6, 1)]:
        x, mask = sentences(*shape)
        (found, left), (expected, right) = program(x, mask), encoder(x, mask)
        assert torch.equal(left, right)
        torch.testing.assert_close(found[left], expected[left], rtol=1e-5, atol=1e-5)


@some_connections
def test_an_exported_encoder_takes_all_shapes(connection: str) -> None:
    assert_exports(make("conv", connection))


@pytest.mark.parametrize(("block", "connection"), [("relative", "residual"), ("mixed", "multiway")])
def test_an_exported_encoder_takes_all_shapes_under_attention(block: str, connection: str) -> None:
    assert_exports(make(block, connection))


@pytest.mark.slow
@every_connection
@every_traceable_block
def test_each_pair_can_be_exported(block: str, connection: str) -> None:
    assert_exports(make(block, connection, 3))


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
    x, mask = sentences(3, 5)
    torch.testing.assert_close(
        program(x, mask)[0][mask], encoder(x, mask)[0][mask], rtol=1e-5, atol=1e-5
    )


# -- memory ------------------------------------------------------------------------------------------------------------


class Made(TorchDispatchMode):
    """Notes the memory of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.sizes[StorageWeakRef(tensor.untyped_storage())] = (
                    tensor.untyped_storage().nbytes()
                )
        return made


def kept_bytes(
    run: Callable[[Tensor, Tensor], Any], parameters: list[nn.Parameter], half: bool = False
) -> int:
    """Bytes that are still held between the forward and the backward pass; each once, and no parameters."""
    x, mask = torch.randn(8, 64, DIM), torch.ones(8, 64, dtype=torch.bool)
    given = {StorageWeakRef(tensor.untyped_storage()) for tensor in (x, mask, *parameters)}
    with torch.autocast("cpu", torch.bfloat16, enabled=half), Made() as made:
        held = run(x, mask)
    kept = sum(
        size for memory, size in made.sizes.items() if memory not in given and not memory.expired()
    )
    del held
    return kept


def encoder_bytes(encoder: Encoder, half: bool = False) -> int:
    return kept_bytes(encoder, list(encoder.parameters()), half)


def dense_bytes(depth: int, bottleneck: int, recompute: bool) -> int:
    connection = partial(Dense, growth_rate=8, bottleneck=bottleneck)
    branch = partial(Branch, dropout=0.0)
    encoder = Encoder(
        DIM, Conv, connection, depth, DIM, branch, final_norm=False, recompute=recompute
    )
    return encoder_bytes(encoder)


def concatenating_bytes(depth: int, growth_rate: int = 8) -> int:
    """Bytes kept by a DenseNet-BC that is written down as in the paper."""
    narrow, widths = 2 * growth_rate, [DIM + i * growth_rate for i in range(depth)]
    norms, squeeze = (
        [nn.LayerNorm(width) for width in widths],
        [nn.Linear(width, narrow) for width in widths],
    )
    branches = [Branch(Conv(narrow, growth_rate), dropout=0.0) for _ in widths]

    def run(x: Tensor, mask: Tensor) -> Tensor:
        features = [x]
        for norm, linear, branch in zip(norms, squeeze, branches, strict=True):
            features.append(branch(linear(norm(torch.cat(features, -1)).relu()), mask=mask))
        return torch.cat(features, -1)

    return kept_bytes(
        run, [p for module in (*norms, *squeeze, *branches) for p in module.parameters()]
    )


@pytest.mark.parametrize(
    ("bottleneck", "recompute", "growth"),
    [(2, False, 2.3), (2, True, 2.3), (0, True, 2.0)],
    ids=str,
)
def test_memory_of_dense_blocks_grows_linearly_with_the_depth(
    bottleneck: int, recompute: bool, growth: float
) -> None:
    few, many = (dense_bytes(depth, bottleneck, recompute) for depth in (12, 24))
    assert 1.5 * few < many < growth * few


def test_dense_blocks_need_less_memory_than_concatenations() -> None:
    few, many = (concatenating_bytes(depth) for depth in (12, 24))
    assert many > 3 * few
    assert dense_bytes(24, 2, recompute=False) < many / 3
    assert dense_bytes(24, 2, recompute=True) < many / 5
    assert dense_bytes(24, 2, recompute=True) < 0.6 * dense_bytes(24, 2, recompute=False)


@pytest.mark.parametrize(
    "connection", ["residual", "dense", "dual path", "attention residuals", "multiway"]
)
def test_half_precision_needs_less_memory_that_grows_linearly_too(connection: str) -> None:
    branch, wiring = partial(Branch, dropout=0.0), CONNECTIONS[connection]
    few, many = (
        Encoder(DIM, Conv, wiring, depth, DIM, branch, final_norm=False) for depth in (12, 24)
    )
    bytes_of_few, bytes_of_many, in_single = (
        encoder_bytes(few, True),
        encoder_bytes(many, True),
        encoder_bytes(many),
    )
    assert bytes_of_many < 2.3 * bytes_of_few
    assert bytes_of_many < in_single


@every_connection
def test_recomputing_needs_less_memory(connection: str) -> None:
    make_deep = partial(Encoder, DIM, BLOCKS["transformer"], CONNECTIONS[connection], 8, DIM)
    whole, less = (
        encoder_bytes(make_deep(partial(Branch, dropout=0.0), recompute=flag))
        for flag in (False, True)
    )
    assert less < 0.7 * whole


@pytest.mark.parametrize("bottleneck", [0, 2])
def test_gradients_of_deep_dense_blocks_do_not_change_where_they_are_recomputed(
    bottleneck: int,
) -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        connection = partial(Dense, growth_rate=8, bottleneck=bottleneck)
        encoder = Encoder(
            IN, Conv, connection, 24, DIM, partial(Branch, dropout=0.2), recompute=recompute
        )
        torch.manual_seed(7)
        found.append(gradients(encoder, encoder, *sentences(4, 8)))
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-7, atol=1e-7)
