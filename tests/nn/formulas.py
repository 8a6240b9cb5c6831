"""The formula of each connection, written out by hand for one sentence, and encoders to hold to it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle, islice, permutations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks import Attention, BlockFactory, Conv, FeedForward
from residense.nn.branch import Branch
from residense.nn.connections import (
    AttentionResiduals,
    ConnectionFactory,
    DeepNorm,
    Dense,
    DepthWeighted,
    DualPath,
    GatedResidual,
    Highway,
    HyperConnections,
    MultiwayDynamicDense,
    Plain,
    PostNorm,
    ProjectedResidual,
    Residual,
    ScalarMix,
    UNetSkips,
)
from residense.nn.connections import ManifoldConstrainedHyperConnections as Constrained
from residense.nn.encoder import Encoder

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
    depth: int = 4,
    start: bool = False,
    num_layers: int | list[int] = 1,
    tie_weights: bool = False,
    **branch: Any,
) -> tuple[Encoder, Any]:
    """Make an encoder whose layers have `depth` blocks, and return it with its first stage.

    Its parameters are random, unless those of the start are asked for.
    """
    torch.manual_seed(0)
    layer = list(islice(cycle(block), depth))
    encoder = Encoder(
        in_dim,
        layer,
        connection,
        num_layers,
        DIM,
        partial(Branch, **{"dropout": 0.0, **branch}),
        final_norm=False,
        stem="none",
        tie_weights=tie_weights,
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
        carried = x
        if i == 0 and short and c.in_dim != c.dim:
            carried = layer_norm(x @ c.projection.weight.T, c.norm)
        x = weight * carried + f(x)
        x = layer_norm(x, c.norms[i]) if normed else x
        x = x.clamp(min=0) if relu else x
    return x


def gated(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    for i, f in enumerate(blocks):
        y = f(x)
        w_r, w_z, w_h = c.from_block[i].weight.chunk(3)
        u_r, u_z = c.from_stream[i].weight.chunk(2)
        r = 1 / (1 + (-(y @ w_r.T + x @ u_r.T)).exp())
        z = 1 / (1 + (-(y @ w_z.T + x @ u_z.T - c.biases[i])).exp())
        h = (y @ w_h.T + (r * x) @ c.candidates[i].weight.T).tanh()
        x = (1 - z) * x + z * h
    return x


def scalar_mix(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    states = [x]
    for f in blocks:
        x = x + f(x)
        states.append(x)
    weights = c.weights.exp() / c.weights.exp().sum()
    return c.scale * weigh(weights, states)


def highway(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    for gate, f in zip(c.gates, blocks, strict=True):
        t = 1 / (1 + (-(x @ gate.weight.T + gate.bias)).exp())
        x = t * f(x) + (1 - t) * x
    return x


def unet(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    after, depth = [], len(blocks)
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
    new = []
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


def attention_residuals(c: Any, blocks: Blocks, x: Tensor, block_size: int) -> Tensor:
    values = [x]
    for i, f in enumerate(blocks):
        y = f(weigh(attention_weights(c.queries[i - 1], values), values) if i else values[0])
        if i % block_size:
            values[-1] = values[-1] + y
        else:
            values.append(y)
    return weigh(attention_weights(c.queries[-1], values), values)


def multiway(c: Any, blocks: Blocks, x: Tensor) -> Tensor:
    z = [x]

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
    size, h = c.streams, [x] * c.streams
    for i, f in enumerate(blocks):
        static = torch.cat((c.reads[i][:, None], c.mixes[i], c.writes[i][:, None]), 1)
        weights = static.view(size, 1, size + 2).expand(-1, len(x), -1)  # [S, L, 1 + S + 1]
        if len(c.dynamic):
            d = c.dynamic[i]
            matrix = torch.cat((d.read.weight, d.mix.weight, d.write.weight))
            scale = torch.cat([d.read_scale] * (size + 1) + [d.write_scale])
            moves = [scale * (rms(row) * d.norm.weight @ matrix.T).tanh() for row in h]
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
    size, h = c.streams, torch.stack([x] * c.streams, 1)  # [L, S, D]
    for i, f in enumerate(blocks):
        moves = [c.dynamic[i].weight @ rms(token.flatten()) for token in h]
        sizes = (size, size, len(moves[0]) - 2 * size)
        scale = torch.cat([s.expand(n) for s, n in zip(c.scales[i], sizes, strict=True)])
        static = torch.cat((c.reads[i], c.writes[i], c.mixes[i]))
        parts = [(static + scale * move).split(sizes) for move in moves]
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
    "gated": Case(GatedResidual, gated),
    "scalar-mix": Case(ScalarMix, scalar_mix),
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
OTHERS = {
    "attending": case(AttentionResiduals, attention_residuals, block_size=1),
    "attending-to-spans": case(AttentionResiduals, attention_residuals, 5, block_size=3),
    "post": Case(PostNorm, POST),
    "deepnorm": Case(DeepNorm, partial(POST, weight=4**0.25)),
    "projected": Case(ProjectedResidual, partial(residual, relu=True, short=True)),
}
CASES = ADDING | CONCATENATING | OTHERS
