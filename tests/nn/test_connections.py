"""Connections: each against its formula written out by hand, what it is at the start, and its connection map."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import permutations
from math import log2
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks import GRU, LSTM, Attention, BlockFactory, Chain, Conv, FeedForward
from residense.nn.connection_map import connection_maps
from residense.nn.connections import ManifoldConstrainedHyperConnections as Constrained
from residense.nn.connections.base import Plain
from residense.nn.connections.dense import Dense, DualPath, Pieces, append
from residense.nn.connections.depth import AttentionResiduals, DepthWeighted, MultiwayDynamicDense
from residense.nn.connections.residual import Highway, Residual, UNetSkips
from residense.nn.connections.streams import HyperConnections
from residense.nn.encoder import Branch, ConnectionFactory, Encoder
from residense.nn.norms import BatchNorm, LayerNorm

IN, DIM, LENGTHS = 6, 8, (5, 1, 3)
Blocks = Sequence[Callable[..., Tensor]]
SIMPLE: list[BlockFactory] = [Conv, partial(FeedForward, expansion=1)]
ATTENTION: list[BlockFactory] = [partial(Attention, heads=2), partial(FeedForward, expansion=1)]


def sentences(
    width: int, longer: int = 0, seed: int = 1, loud: float = 100.0
) -> tuple[Tensor, Tensor]:
    """The same random sentences, with junk that can be chosen at padded positions, and their mask."""
    mask = torch.arange(max(LENGTHS) + longer) < torch.tensor(LENGTHS)[:, None]
    junk = torch.Generator().manual_seed(seed)
    x = loud * torch.randn(*mask.shape, width, generator=junk, dtype=torch.float64)
    x[mask] = torch.randn(
        sum(LENGTHS), width, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    return x, mask


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))


def make(
    connection: ConnectionFactory,
    block: list[BlockFactory] = SIMPLE,
    in_dim: int = DIM,
    depth: int | list[int] = 4,
    start: bool = False,
    share: bool = False,
    **branch: Any,
) -> tuple[Encoder, Any]:
    """An encoder and its first stage; its parameters are random, not those of the start unless these are asked for."""
    torch.manual_seed(0)
    around = partial(Branch, **{"dropout": 0.0, **branch})
    encoder = Encoder(
        in_dim, block, connection, depth, DIM, around, final_norm=False, share=share
    ).double()
    if not start:
        randomise(encoder)
    return encoder, encoder.stages[0]


def alone(branch: Any) -> Callable[..., Tensor]:
    """A branch as a function of one sentence [L, D] without padding."""
    return lambda *streams: branch(
        *(x[None] for x in streams), mask=torch.ones(1, len(streams[0])).bool()
    )[0]


# -- the formulae, for one sentence x [L, D] ---------------------------------------------------------------------------


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
    )


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()


def weigh(weights: Iterable[Tensor], sources: Iterable[Tensor]) -> Tensor:
    return sum(
        (weight * source for weight, source in zip(weights, sources, strict=True)), torch.zeros(())
    )


def entry(c: Any, x: Tensor) -> Tensor:
    return x if c.in_dim == c.dim else x @ c.project.linear.weight.T


def plain(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    for f in blocks:
        x = f(x)
    return x


def residual(
    c: Any,
    blocks: Blocks,
    x: Tensor,
    weight: float = 1,
    normed: bool = False,
    relu: bool = False,
    short: bool = False,
) -> Tensor:
    for i, f in enumerate(blocks):
        carried = entry(c, x) if i == 0 else x
        if i == 0 and short and c.in_dim != c.dim:
            carried = layer_norm(carried, c.project.norm)
        x = weight * carried + f(x)
        x = layer_norm(x, c.norms[i]) if normed else x
        x = x.clamp(min=0) if relu else x
    return x


def highway(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    x = entry(c, x)
    for gate, f in zip(c.gates, blocks, strict=True):
        t = 1 / (1 + (-(x @ gate.weight.T + gate.bias)).exp())
        x = t * f(x) + (1 - t) * x
    return x


def unet(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    x, after, depth = entry(c, x), [], len(blocks)
    for i, f in enumerate(blocks):
        partner = depth - 1 - i
        if partner < depth // 2:
            x = x + c.gates[partner].sigmoid() * after[partner]
        x = x + f(x)
        after.append(x)
    return x


def dense(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    sources = [x]
    for i, f in enumerate(blocks):
        read = torch.cat(sources, -1)
        if len(c.squeeze):
            rectified = [
                layer_norm(source, c.norms[j]).clamp(min=0) for j, source in enumerate(sources)
            ]
            read = torch.cat(rectified, -1) @ c.squeeze[i].weight.T + c.squeeze[i].bias
        sources.append(f(read))
    return torch.cat(sources, -1)


def dual_path(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    x, new = entry(c, x), []
    for i, f in enumerate(blocks):
        sources = [
            layer_norm(x, c.stream_norms[i]),
            *(layer_norm(z, c.norms[j]) for j, z in enumerate(new)),
        ]
        y = f(torch.cat(sources, -1).clamp(min=0) @ c.squeeze[i].weight.T + c.squeeze[i].bias)
        x = x + y[:, : c.dim]
        new.append(y[:, c.dim :])
    return torch.cat([x, *new], -1)


def depth_weighted(c: Any, blocks: Blocks, x: Tensor, dilation: int, period: int) -> Tensor:
    x = entry(c, x)
    z, means = [x], list(c.means)
    for i, f in enumerate(blocks, 1):
        x = x + f(x)
        z.append(x)
        if i % period == 0:
            x = weigh(means.pop(0), [z[j] for j in range(i + 1) if (i - j) % dilation == 0])
    assert not means
    return x


def attention_weights(query: Tensor, values: list[Tensor]) -> Tensor:
    return torch.stack([rms(value) @ query for value in values]).softmax(0)[
        ..., None
    ]  # [sources, L, 1]


def attention_residuals(c: Any, blocks: Blocks, x: Tensor, span: int) -> Tensor:
    values = [entry(c, x)]
    for i, f in enumerate(blocks):
        y = f(weigh(attention_weights(c.queries[i - 1], values), values) if i else values[0])
        if i % span:
            values[-1] = values[-1] + y
        else:
            values.append(y)
    return weigh(attention_weights(c.queries[-1], values), values)


def multiway(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    z = [entry(c, x)]

    def ways(i: int) -> list[Tensor]:
        up, _, down = c.dynamic[i]
        weights = F.gelu(rms(z[-1]) @ up.weight.T) @ down.weight.T + down.bias
        weights = weights.view(len(x), -1, len(z)).permute(1, 2, 0)[..., None]  # [C, sources, L, 1]
        return [weigh(way, z) for way in weights]

    for i, f in enumerate(blocks):
        streams = ways(i)
        z.append(streams[-1] + f(*streams[:3]))
    return ways(len(blocks))[0]


def hyper(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    size, h = c.streams, [entry(c, x)] * c.streams
    for i, f in enumerate(blocks):
        weights = c.static[i].view(size, 1, size + 2).expand(-1, len(x), -1)  # [S, L, 1 + S + 1]
        if len(c.dynamic):
            scale = torch.stack([c.scales[i][0]] * (size + 1) + [c.scales[i][1]])
            moves = [
                scale * (rms(row) * c.norms[i].weight @ c.dynamic[i].weight.T).tanh() for row in h
            ]
            weights = weights + torch.stack(moves)
        y = f(weigh(weights[..., :1], h))
        h = [weigh(weights[..., 1 + t, None], h) + weights[t, :, -1:] * y for t in range(size)]
    return torch.stack(h).mean(0)


def doubly_stochastic(logits: Tensor, size: int, mixing: str) -> Tensor:
    if mixing == "permutations":
        one = torch.eye(size).to(logits)
        return weigh(
            logits.softmax(0),
            [torch.stack([one[i] for i in order]) for order in permutations(range(size))],
        )
    matrix = logits.exp().view(size, size)
    for _ in range(20):
        matrix = matrix / matrix.sum(0, keepdim=True)
        matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix


def constrained(c: Any, blocks: Blocks, x: Tensor, mixing: str) -> Tensor:
    size, h = c.streams, torch.stack([entry(c, x)] * c.streams, 1)  # [L, S, D]
    for i, f in enumerate(blocks):
        moves = [c.dynamic[i].weight @ rms(token.flatten()) for token in h]
        sizes = (size, size, len(moves[0]) - 2 * size)
        scale = torch.cat([s.expand(n) for s, n in zip(c.scales[i], sizes, strict=True)])
        parts = [(c.static[i] + scale * move).split(sizes) for move in moves]
        y = f(
            torch.stack(
                [read.sigmoid() @ token for (read, _, _), token in zip(parts, h, strict=True)]
            )
        )
        tokens = []
        for (_, write, logits), token, new in zip(parts, h, y, strict=True):
            tokens.append(
                doubly_stochastic(logits, size, mixing) @ token
                + torch.outer(2 * write.sigmoid(), new)
            )
        h = torch.stack(tokens)
    return h.mean(1)


class Case(NamedTuple):
    connection: ConnectionFactory
    formula: Callable[..., Tensor]
    block: list[BlockFactory] = SIMPLE
    depth: int = 4


def case(
    connection: Callable[..., Any], formula: Callable[..., Tensor], depth: int = 4, **options: Any
) -> Case:
    return Case(partial(connection, **options), partial(formula, **options), depth=depth)


ADDING = {
    "plain": Case(Plain, plain),
    "residual": Case(Residual, residual),
    "highway": Case(Highway, highway),
    "unet-even": Case(UNetSkips, unet),
    "unet-odd": Case(UNetSkips, unet, depth=5),
    "weighted": case(DepthWeighted, depth_weighted, dilation=1, period=1),
    "weighted-dilated": case(DepthWeighted, depth_weighted, 5, dilation=2, period=1),
    "weighted-periodic": case(DepthWeighted, depth_weighted, 5, dilation=1, period=2),
    "weighted-both": case(DepthWeighted, depth_weighted, 5, dilation=2, period=2),
    "multiway": Case(MultiwayDynamicDense, multiway),
    "multiway-attention": Case(MultiwayDynamicDense, multiway, ATTENTION, 3),
    "hyper": Case(partial(HyperConnections, streams=3), hyper),
    "hyper-static": Case(partial(HyperConnections, streams=3, dynamic=False), hyper),
    "constrained": case(partial(Constrained, streams=3), constrained, mixing="permutations"),
    "constrained-sinkhorn": case(partial(Constrained, streams=3), constrained, mixing="sinkhorn"),
}
CONCATENATING = {
    "dense": Case(partial(Dense, growth_rate=3, bottleneck=2), dense, depth=5),
    "dense-bare": Case(partial(Dense, growth_rate=3, bottleneck=0), dense),
    "dual_path": Case(partial(DualPath, growth_rate=3), dual_path),
}
POST = partial(residual, normed=True)
SHORT = partial(Residual, activation="relu", shortcut_norm=LayerNorm)
OTHERS = {
    "attending": case(AttentionResiduals, attention_residuals, span=1),
    "attending-to-spans": case(AttentionResiduals, attention_residuals, 5, span=3),
    "post": Case(partial(Residual, norm="post"), POST),
    "deepnorm": Case(partial(Residual, norm="deepnorm"), partial(POST, weight=4**0.25)),
    "relu": Case(SHORT, partial(residual, relu=True, short=True)),
}
CASES = ADDING | CONCATENATING | OTHERS


@pytest.mark.parametrize("in_dim", [DIM, IN])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_formula(name: str, in_dim: int) -> None:
    connection, formula, block, depth = CASES[name]
    encoder, stage = make(connection, block, in_dim, depth)
    x, mask = sentences(in_dim)
    wanted = [x.requires_grad_(), *stage.connection.parameters(), *stage.branches.parameters()]
    found, blocks = encoder(x, mask)[0][mask], [alone(branch) for branch in stage.branches]
    rows = [formula(stage.connection, blocks, row[real]) for row, real in zip(x, mask, strict=True)]
    expected = torch.cat(rows)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    noise = torch.randn(
        found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    ours, theirs = (torch.autograd.grad((y * noise).sum(), wanted) for y in (found, expected))
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-6)
    assert all(grad.any() for grad in ours[: 1 + len(list(stage.connection.parameters()))])


# -- at the start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [SIMPLE, ATTENTION], ids=["simple", "attention"])
@pytest.mark.parametrize(
    "name", [name for name in ADDING if name.startswith(("weighted", "hyper", "multi"))]
)
def test_learned_connections_are_residual_at_the_start(
    name: str, block: list[BlockFactory]
) -> None:
    (encoder, stage), (other, right) = (
        make(ADDING[name].connection, block, start=True),
        make(Residual, block),
    )
    stage.branches.load_state_dict(right.branches.state_dict())
    x, mask = sentences(DIM)
    torch.testing.assert_close(
        encoder(x, mask)[0][mask], other(x, mask)[0][mask], rtol=1e-10, atol=1e-10
    )


def test_rezero_is_the_identity_at_the_start() -> None:
    (encoder, _), (x, mask) = (
        make(Residual, ATTENTION, start=True, scale="rezero", norm="none"),
        sentences(DIM),
    )
    assert torch.equal(encoder(x, mask)[0][mask], x[mask])


def test_attention_residuals_read_the_mean_at_the_start() -> None:
    (encoder, stage), (x, mask) = make(AttentionResiduals, start=True), sentences(DIM)
    values = [x]
    for branch in stage.branches:
        values.append(branch(torch.stack(values).mean(0), mask=mask))
    torch.testing.assert_close(
        encoder(x, mask)[0], torch.stack(values).mean(0), rtol=1e-10, atol=1e-10
    )


@torch.no_grad()
@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize(
    ("mixing", "noise"), [("permutations", 0), ("permutations", 3), ("sinkhorn", 0)]
)
def test_constrained_mixing_is_doubly_stochastic(
    mixing: Any, noise: int, mixed_precision: bool
) -> None:
    torch.manual_seed(0)
    for streams in (1, 2, 3, 4):
        connection, mask = Constrained(DIM, DIM, 2, streams, mixing), torch.ones(2, 5).bool()
        for _ in range(noise):
            randomise(connection)
        for i in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision):
                found = connection.coefficients(torch.randn(2, 5, streams, DIM), mask, i)[..., 1:-1]
            assert (found >= 0).all()
            for axis in (-1, -2):
                torch.testing.assert_close(
                    found.sum(axis), torch.ones(2, 5, streams), rtol=0, atol=1e-6
                )


@torch.no_grad()
def test_sinkhorn_ends_on_rows_and_leaves_columns_near_one() -> None:
    logits = 5 * torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    found = Constrained(DIM, DIM, 1, 4, "sinkhorn")._doubly_stochastic(logits)
    torch.testing.assert_close(found.sum(-1), torch.ones(200, 4), rtol=0, atol=1e-6)
    assert 0.01 < (found.sum(-2) - 1).abs().amax() < 0.2


@pytest.mark.parametrize("depth", [3, [3, 3]], ids=str)
@pytest.mark.parametrize("share", [False, True])
def test_deepnorm_scales_initial_weights_once(share: bool, depth: int | list[int]) -> None:
    for block in (Conv, ATTENTION[0], partial(Chain, blocks=[Conv, ATTENTION[0]])):
        (scaled, _), (other, _) = (
            make(partial(Residual, norm=norm), [block], depth=depth, start=True, share=share)
            for norm in ("deepnorm", "post")
        )
        for (name, weight), start in zip(
            scaled.named_parameters(), other.parameters(), strict=True
        ):
            free = ".block." not in name or weight.ndim == 1 or ".query." in name or ".key." in name
            torch.testing.assert_close(weight, start * (1 if free else 12**-0.25), msg=name)


@pytest.mark.parametrize("block", [LSTM, GRU, partial(Chain, blocks=[Conv, LSTM])])
def test_deepnorm_refuses_recurrent_blocks(block: BlockFactory) -> None:
    with pytest.raises(ValueError, match="deepnorm is not defined for"):
        make(partial(Residual, norm="deepnorm"), [block])


@pytest.mark.parametrize("first", [1, 2, 3, 5, 8])
def test_pieces_stay_few_and_in_order(first: int) -> None:
    everything = [torch.randn(2, 3, first)]
    pieces: Pieces = append((), everything[0])
    for n in range(1, 40):
        everything.append(torch.randn(2, 3, 1))
        pieces = append(pieces, everything[-1])
        assert len(pieces) <= 1 + log2(n + 1)
        assert torch.equal(torch.cat(pieces, -1), torch.cat(everything, -1))


# -- connection maps ---------------------------------------------------------------------------------------------------


def assert_map(encoder: Encoder, expected: Tensor, in_dim: int = DIM, **options: Any) -> None:
    (found,) = connection_maps(encoder, *sentences(in_dim, **options))
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def settle(connection: Any) -> None:
    """Make the coefficients of a connection the same for all tokens and channels."""
    if isinstance(connection, Highway):
        for i, gate in enumerate(connection.gates.children()):
            gate.weight.zero_()  # type: ignore[operator]
            gate.bias.fill_(0.5 * i - 1)  # type: ignore[operator]
    elif isinstance(connection, MultiwayDynamicDense):
        for layer in connection.dynamic.children():
            layer[-1].weight.zero_()  # type: ignore[index]
    for scale in getattr(connection, "scales", ()):
        scale.zero_()


@pytest.mark.parametrize("in_dim", [DIM, IN])
def test_simple_maps_have_a_closed_form(in_dim: int) -> None:
    assert_map(make(Plain, in_dim=in_dim)[0], torch.eye(5), in_dim)
    assert_map(make(Residual, in_dim=in_dim)[0], torch.ones(5, 5).tril(), in_dim)
    encoder, stage = make(partial(Highway, bias=-0.7), in_dim=in_dim, start=True)
    for gate in stage.connection.gates:
        nn.init.zeros_(gate.weight)
    t = torch.tensor(-0.7).sigmoid().item()
    rows = [
        [(t if s else 1) * (1 - t) ** (i - s) if s <= i else 0 for s in range(5)] for i in range(5)
    ]
    assert_map(encoder, torch.tensor(rows), in_dim)


@torch.no_grad()
@pytest.mark.parametrize("name", ADDING)
def test_maps_of_adding_connections_are_their_coefficients(name: str) -> None:
    connection, formula, block, _ = ADDING[name]
    encoder, stage = make(connection, block, depth=DIM - 1)
    settle(stage.connection)
    sources, reads = torch.eye(DIM, dtype=torch.float64).split(1), []

    def write(new: Tensor, *streams: Tensor) -> Tensor:
        reads.append(torch.stack(streams).mean(0))
        return new

    left = formula(stage.connection, [partial(write, new) for new in sources[1:]], sources[0])
    assert_map(encoder, torch.cat([*reads, left]))


@torch.no_grad()
def test_the_map_of_attention_residuals_is_the_mean_of_their_weights() -> None:
    (encoder, stage), (x, mask) = make(AttentionResiduals), sentences(DIM)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[0, 0] = 1
    for row, real in zip(x, mask, strict=True):
        values = [row[real], alone(stage.branches[0])(row[real])]
        for i, query in enumerate(stage.connection.queries, 1):
            weights = attention_weights(query, values)
            expected[i, : i + 1] += weights.sum((1, 2)) / sum(LENGTHS)
            if i < 4:
                values.append(alone(stage.branches[i])(weigh(weights, values)))
    assert_map(encoder, expected)


@torch.no_grad()
@pytest.mark.parametrize("bottleneck", [0, 2])
def test_the_map_of_dense_shows_shares_of_energy(bottleneck: int) -> None:
    (encoder, stage), (x, mask) = (
        make(partial(Dense, growth_rate=3, bottleneck=bottleneck), in_dim=IN),
        sentences(IN),
    )
    connection, widths = stage.connection, [IN, 3, 3, 3, 3]
    sources, expected = (
        encoder(x, mask)[0][mask].split(widths, -1),
        torch.zeros(5, 5, dtype=torch.float64),
    )
    for i in range(5):
        for s in range(i + 1):
            moved = sources[s]
            if bottleneck and i < 4:
                norm, weight = (
                    connection.norms[s],
                    connection.squeeze[i].weight.split(widths[: i + 1], 1)[s],
                )
                moved = (layer_norm(moved, norm).clamp(min=0) - norm.bias.clamp(min=0)) @ weight.T
            expected[i, s] = moved.square().sum()
    assert_map(encoder, expected / expected.sum(1, keepdim=True), IN)


@pytest.mark.parametrize("name", CASES)
def test_padding_does_not_change_a_map(name: str) -> None:
    connection, _, block, depth = CASES[name]
    encoder, _ = make(connection, block, depth=depth)
    (found,) = connection_maps(encoder, *sentences(DIM))
    assert torch.equal(found, found.tril())
    if name in CONCATENATING:
        torch.testing.assert_close(found.sum(1), torch.ones(depth + 1))
    assert_map(encoder, found, seed=7, loud=3.0)
    assert_map(encoder, found, longer=4)


def test_each_stage_has_a_map() -> None:
    assert [
        found.shape for found in connection_maps(make(Dense, depth=[2, 3])[0], *sentences(DIM))
    ] == [(3, 3), (4, 4)]
    for found in connection_maps(make(Residual, depth=[2, 3])[0], *sentences(DIM)):
        torch.testing.assert_close(found, torch.ones_like(found).tril())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_measuring_leaves_no_trace(name: str, training: bool) -> None:
    connection, _, block, depth = CASES[name]
    encoder, stage = make(connection, block, depth=depth, norm_type=BatchNorm, dropout=0.3)
    x, mask = sentences(DIM)

    def outputs() -> Tensor:
        torch.manual_seed(5)
        encoder.load_state_dict(before)
        return encoder(x, mask)[0][mask]

    encoder.train(training)(x, mask)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    expected, drawn = outputs(), torch.get_rng_state()
    encoder.load_state_dict(before)
    connection_maps(encoder, x, mask)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    for module in encoder.modules():
        assert module.training == training
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert not stage.connection.held
    assert torch.equal(outputs(), expected)
