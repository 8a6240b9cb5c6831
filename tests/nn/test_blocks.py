"""Blocks, norms, branches, transitions and the options of encoders: against loops written out by hand and torch.nn."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks import GRU, LSTM, Attention, Block, BlockFactory, Chain, Conv, FeedForward
from residense.nn.blocks.attention import rotate
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
from residense.nn.norms import BatchNorm, LayerNorm, Norm, NormFactory, RMSNorm
from residense.nn.transition import Transition

IN, DIM, LENGTHS = 12, 16, (7, 1, 4, 7, 3)
NORMS: dict[str, NormFactory] = {"layer": LayerNorm, "rms": RMSNorm, "batch": BatchNorm}
relative = partial(Attention, heads=2, positions="relative")


def sentences(
    width: int = IN,
    dtype: torch.dtype = torch.float32,
    lengths: tuple[int, ...] = LENGTHS,
    longest: int = 0,
) -> tuple[Tensor, Tensor]:
    """Random sentences with loud junk at padded positions, and their mask."""
    source = torch.Generator().manual_seed(1)
    rows = [torch.randn(length, width, generator=source, dtype=dtype) for length in lengths]
    mask = torch.arange(max(longest, *lengths)) < torch.tensor(lengths)[:, None]
    x = 100 * torch.randn(*mask.shape, width, generator=source, dtype=dtype)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    return x, mask


def each(x: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """The sentences, without padding."""
    for row, real in zip(x, mask, strict=True):
        yield row[real]


def assert_rows(
    found: Tensor, mask: Tensor, expected: list[Tensor], tolerance: float = 1e-5
) -> None:
    for row, right in zip(each(found, mask), expected, strict=True):
        torch.testing.assert_close(row, right, rtol=tolerance, atol=tolerance)


def shaken(module: Any) -> Any:
    """The module with other values in all its parameters, so that none of them is a zero or a one by chance."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def noise_like(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)


# -- blocks ------------------------------------------------------------------------------------------------------------


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
            ValueError, match="glu gates what the convolution computes: it stands after it"
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


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("kind", "layer"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
def test_recurrent_blocks_are_those_of_torch_on_packed_sequences(
    kind: type[LSTM | GRU], layer: type[nn.LSTM | nn.GRU], bidirectional: bool
) -> None:
    torch.manual_seed(0)
    block = kind(IN, DIM, bidirectional).double()
    width = DIM // 2 if bidirectional else DIM
    other = layer(IN, width, batch_first=True, bidirectional=bidirectional).double()
    pairs = dict(block.ahead.named_parameters())
    if block.back is not None:
        pairs |= {f"{name}_reverse": parameter for name, parameter in block.back.named_parameters()}
    assert sorted(pairs) == sorted(name for name, _ in other.named_parameters())
    with torch.no_grad():
        for name, parameter in pairs.items():
            other.get_parameter(name).copy_(parameter)
    x, mask = sentences(dtype=torch.float64)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    packed = nn.utils.rnn.pack_padded_sequence(
        theirs, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    expected, _ = nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    found = block(mine, mask=mask)
    torch.testing.assert_close(found[mask], expected[mask])
    (found * noise_like(found))[mask].sum().backward()
    (expected * noise_like(found))[mask].sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    for name, parameter in pairs.items():
        torch.testing.assert_close(parameter.grad, other.get_parameter(name).grad)


@pytest.mark.parametrize(("kind", "gates"), [(LSTM, 4), (GRU, 3)])
def test_recurrent_blocks_start_with_orthogonal_weights_and_open_forget_gates(
    kind: type[LSTM | GRU], gates: int
) -> None:
    block = kind(IN, DIM)
    assert block.back is not None
    for layer in (block.ahead, block.back):
        for gate in layer.get_parameter("weight_hh_l0").chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(DIM // 2), rtol=1e-5, atol=1e-5)
        if kind is LSTM:
            assert (layer.get_parameter("bias_ih_l0").chunk(4)[1] == 1).all()


def turned(x: Tensor) -> Tensor:
    """`x` [L, D] with its pairs of channels (d, d + D/2) as complex numbers, turned one by one."""
    half = x.shape[-1] // 2
    y = torch.empty_like(x)
    for t in range(len(x)):
        for d in range(half):
            angle = t / 10_000 ** (2 * d / x.shape[-1])
            number = complex(x[t, d], x[t, d + half]) * complex(math.cos(angle), math.sin(angle))
            y[t, d], y[t, d + half] = number.real, number.imag
    return y


def distance_code(distance: int, width: int) -> Tensor:
    angles = [distance / 10_000 ** (2 * d / width) for d in range(width // 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)


def scores(block: Attention, query: Tensor, key: Tensor, head: slice) -> Tensor:
    """What one head makes of each pair of tokens of one sentence [L, L], before the softmax."""
    q, k, width = query[:, head], key[:, head], head.stop - head.start
    if block.positions == "rotary":
        q, k = turned(q), turned(k)
    found = torch.empty(len(q), len(q), dtype=q.dtype)
    for i, j in product(range(len(q)), repeat=2):
        if block.positions == "relative":
            u, v, code = (
                block.content_bias[head],
                block.position_bias[head],
                distance_code(i - j, width),
            )
            found[i, j] = q[i] @ k[j] + q[i] @ code + u @ k[j] + v @ code
        else:
            found[i, j] = q[i] @ k[j] / math.sqrt(width)
    return found


def attend(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one sentence without padding, head by head and token by token."""
    query, key, value = block.query(q), block.key(k), block.value(v)
    width, mixed = query.shape[-1] // block.heads, torch.zeros_like(query)
    for head in (slice(h * width, (h + 1) * width) for h in range(block.heads)):
        for t, row in enumerate(scores(block, query, key, head)):
            weights = row.exp() / row.exp().sum()
            mixed[t, head] = sum(
                weight * other for weight, other in zip(weights, value[:, head], strict=True)
            )
    return block.out(mixed)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
@pytest.mark.parametrize("streams", [1, 2, 3])
def test_attention_is_that_of_each_head_and_token(streams: int, positions: Any) -> None:
    block = shaken(Attention(IN, DIM, 2, positions).double())
    x, mask = sentences(dtype=torch.float64)
    given = [x, x.flip(2), x.square()][:streams]
    expected = []
    for i, real in enumerate(mask):
        rows = [stream[i, real] for stream in given]
        expected.append(attend(block, *rows, *rows[:1] * (3 - streams)))
    assert streams <= block.inputs
    assert_rows(block(*given, mask=mask), mask, expected)  # angles have single precision


@pytest.mark.parametrize("shift", [1, 17, 200])
def test_rotated_scores_depend_on_distances_alone(shift: int) -> None:
    q, k = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    later = [
        rotate(torch.cat((torch.zeros(shift, 8, dtype=torch.float64), x)))[shift:] for x in (q, k)
    ]
    found, expected = later[0] @ later[1].T, rotate(q) @ rotate(k).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, q @ k.T, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_a_sentence_may_stand_anywhere_under_attention(positions: Any) -> None:
    block = shaken(Attention(IN, DIM, 4, positions))
    x = torch.randn(1, 6, IN)
    later, mask = torch.cat((torch.randn(1, 5, IN), x), 1), torch.arange(11)[None] >= 5
    expected = block(x, mask=torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(block(later, mask=mask)[:, 5:], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("positions", "directed"), [("rotary", True), ("relative", True), ("none", False)]
)
def test_attention_knows_left_from_right_by_positions(positions: Any, directed: bool) -> None:
    torch.manual_seed(0)
    block, x = Attention(IN, DIM, 4, positions), torch.randn(1, 3, IN)
    mask = torch.ones(1, 3, dtype=torch.bool)
    found, expected = block(x.flip(1), mask=mask)[:, 1], block(x, mask=mask)[:, 1]
    assert torch.allclose(found, expected, atol=1e-3) != directed


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "ordered"),
    [
        (Attention, True),
        (relative, True),
        (partial(Attention, positions="none"), False),
        (LSTM, True),
        (GRU, True),
        (partial(GRU, bidirectional=False), True),
        (Conv, True),
        (partial(Conv, separable=True), True),
        (partial(Conv, kernel=1), False),
        (FeedForward, False),
        (partial(Chain, blocks=[FeedForward, Conv]), True),
        (partial(Chain, blocks=[FeedForward, FeedForward]), False),
    ],
)
def test_order_matters_to_blocks_that_look_at_places(kind: BlockFactory, ordered: bool) -> None:
    torch.manual_seed(0)
    block, x, order = kind(IN, DIM), torch.randn(1, 6, IN), torch.tensor([5, 2, 0, 4, 3, 1])
    mask = torch.ones(1, 6, dtype=torch.bool)
    assert (
        torch.allclose(block(x[:, order], mask=mask), block(x, mask=mask)[:, order], atol=1e-3)
        != ordered
    )


@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("gelu", F.gelu)])
def test_a_feed_forward_block_has_two_layers(
    activation: Any, function: Callable[[Tensor], Tensor]
) -> None:
    block = FeedForward(IN, DIM, 3, activation)
    x, mask = sentences()
    hidden = function(x @ block.up.weight.T + block.up.bias)
    assert hidden.shape[-1] == 3 * DIM
    torch.testing.assert_close(block(x, mask=mask), hidden @ block.down.weight.T + block.down.bias)


def test_a_gated_feed_forward_block_multiplies_two_hidden_layers() -> None:
    block = FeedForward(IN, DIM, 3, "swiglu")
    x, mask = sentences()
    assert block.gate is not None
    gate = x @ block.gate.weight.T + block.gate.bias
    hidden = gate * gate.sigmoid() * (x @ block.up.weight.T + block.up.bias)
    torch.testing.assert_close(block(x, mask=mask), hidden @ block.down.weight.T + block.down.bias)


@pytest.mark.parametrize("norm", [None, LayerNorm, RMSNorm])
def test_a_chain_is_its_blocks_in_a_row_with_a_norm_after_each(norm: NormFactory | None) -> None:
    chain = shaken(Chain(IN, DIM, [Conv, partial(Attention, heads=2), FeedForward], norm))
    x, mask = sentences()
    assert [(type(b), b.in_dim, b.out_dim) for b in chain.blocks] == [
        (Conv, IN, DIM),
        (Attention, DIM, DIM),
        (FeedForward, DIM, DIM),
    ]
    y = x
    for block, layer in zip(chain.blocks, chain.norms, strict=True):
        y = block(y, mask=mask)
        if norm is LayerNorm:
            y = F.layer_norm(y, (DIM,), layer.weight, layer.bias)
        elif norm is RMSNorm:
            y = F.rms_norm(y, (DIM,), layer.weight)
    assert torch.equal(chain(x, mask=mask)[mask], y[mask])


def test_a_chain_of_convolutions_normalises_real_tokens_alone() -> None:
    torch.manual_seed(0)
    chain: Any = Chain(IN, DIM, [partial(Conv, activation="none", bias=False), Conv], BatchNorm)
    x, mask = sentences()
    y = chain.blocks[0](x, mask=mask)
    real = F.batch_norm(y[mask], None, None, training=True)
    y = chain.blocks[1](torch.zeros_like(y).masked_scatter(mask[..., None], real), mask=mask)
    expected = F.batch_norm(y[mask], None, None, training=True)
    torch.testing.assert_close(chain(x, mask=mask)[mask], expected, rtol=1e-4, atol=1e-5)


class Own(Block):
    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("kind", "scaled"),
    [
        (Conv, ["conv.weight"]),
        (partial(Conv, activation="glu"), ["conv.weight"]),
        (partial(Conv, separable=True), ["conv.1.weight"]),
        (Attention, ["out.weight", "value.weight"]),
        (relative, ["out.weight", "value.weight"]),
        (
            partial(Chain, blocks=[Conv, Attention], norm=LayerNorm),
            ["blocks.0.conv.weight", "blocks.1.out.weight", "blocks.1.value.weight"],
        ),
    ],
)
def test_deepnorm_scales_the_weights_that_set_the_size(
    kind: BlockFactory, scaled: list[str]
) -> None:
    block = shaken(kind(IN, DIM))
    before = {name: parameter.clone() for name, parameter in block.named_parameters()}
    block.scale_init(0.5)
    changed = [
        name
        for name, parameter in block.named_parameters()
        if not torch.equal(parameter, before[name])
    ]
    assert sorted(changed) == scaled
    for name in scaled:
        torch.testing.assert_close(block.get_parameter(name), before[name] / 2)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_deepnorm_draws_feed_forward_weights_anew_with_the_gain_of_the_paper(
    activation: Any,
) -> None:
    torch.manual_seed(0)
    block = FeedForward(256, 256, activation=activation)
    before = {name: parameter.clone() for name, parameter in block.named_parameters()}
    block.scale_init(0.5)
    xavier = math.sqrt(2 / (256 + 1024))
    for linear in (block.up, block.down):
        assert linear.weight.std().item() == pytest.approx(0.5 * xavier, rel=0.02)
    changed = [
        name
        for name, parameter in block.named_parameters()
        if not torch.equal(parameter, before[name])
    ]
    assert sorted(changed) == ["down.weight", "up.weight"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(LSTM, "LSTM"), (GRU, "GRU"), (Own, "Own"), (partial(Chain, blocks=[Conv, LSTM]), "LSTM")],
)
def test_deepnorm_is_refused_where_it_is_not_defined(kind: BlockFactory, name: str) -> None:
    message = f"deepnorm is not defined for {name}: use norm: post, or another block"
    with pytest.raises(ValueError, match=message):
        kind(IN, DIM).scale_init(0.5)
    with pytest.raises(ValueError, match=message):
        Encoder(DIM, kind, partial(Residual, norm="deepnorm"), 2, DIM)


@pytest.mark.parametrize(
    ("make_block", "message"),
    [
        (
            lambda: Conv(4, 4, kernel=2),
            "kernel must be odd so that each token is the centre of its window; got 2",
        ),
        (
            lambda: Conv(4, 4, kernel=-1),
            "kernel must be odd so that each token is the centre of its window; got -1",
        ),
        (lambda: Conv(4, 4, dilation=0), "dilation must be at least 1; got 0"),
        (
            lambda: LSTM(4, 5),
            "a bidirectional LSTM writes half of its width in each direction; 5 is odd",
        ),
        (
            lambda: GRU(4, 5),
            "a bidirectional GRU writes half of its width in each direction; 5 is odd",
        ),
        (lambda: Attention(4, 12, heads=4), r"out_dim must be divisible by 2 \* heads = 8; got 12"),
        (
            lambda: Attention(4, 13, heads=4, positions="none"),
            "out_dim must be divisible by heads = 4; got 13",
        ),
        (lambda: Attention(4, 12, heads=0), r"out_dim must be divisible by 2 \* heads = 0; got 12"),
        (
            lambda: Encoder(4, Attention, partial(Dense, growth_rate=12)),
            r"divisible by 2 \* heads = 8; got 12",
        ),
        (lambda: Chain(4, 4, []), "a chain needs at least one block"),
    ],
)
def test_impossible_blocks_are_named(make_block: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_block()


@torch.no_grad()
def test_attention_without_positions_may_have_heads_of_an_odd_width() -> None:
    block = shaken(Attention(IN, 20, 4, "none").double())
    x, mask = sentences(dtype=torch.float64)
    assert_rows(
        block(x, mask=mask), mask, [attend(block, row, row, row) for row in each(x, mask)], 1e-10
    )


def test_one_direction_may_have_an_odd_width() -> None:
    x, mask = sentences()
    assert LSTM(IN, 5, bidirectional=False)(x, mask=mask).shape == (*mask.shape, 5)


# -- norms -------------------------------------------------------------------------------------------------------------


def test_norms_of_single_tokens_are_those_of_torch() -> None:
    x, mask = sentences()
    layer, rms = shaken(LayerNorm(IN)), shaken(RMSNorm(IN))
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt() * layer.weight + layer.bias
    torch.testing.assert_close(layer(x, mask), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x, mask), F.layer_norm(x, (IN,), layer.weight, layer.bias))
    expected = x / x.square().mean(-1, keepdim=True).sqrt() * rms.weight
    torch.testing.assert_close(rms(x, mask), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(rms(x, mask), F.rms_norm(x, (IN,), rms.weight))


def test_no_norm_is_the_identity() -> None:
    x, mask = sentences()
    norm = Norm(IN)
    assert norm(x, mask) is x
    assert list(norm.parameters()) == []


@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.4, 0.1)])
def test_batch_norm_is_that_of_torch_on_the_real_tokens(momentum: float, eps: float) -> None:
    norm = shaken(BatchNorm(IN, momentum, eps).double())
    other = nn.BatchNorm1d(IN, eps, momentum).double()
    with torch.no_grad():
        other.weight.copy_(norm.weight)
        other.bias.copy_(norm.bias)
    assert other.running_mean is not None
    assert other.running_var is not None
    for shift in (0.0, 3.0):
        x, mask = sentences(dtype=torch.float64)
        mine, theirs = (x + shift).requires_grad_(), (x + shift)[mask].requires_grad_()
        found, expected = norm(mine, mask)[mask], other(theirs)
        torch.testing.assert_close(found, expected)
        (found * noise_like(found)).sum().backward()
        (expected * noise_like(found)).sum().backward()
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad[mask], theirs.grad)
        assert not mine.grad[~mask].any()
        for name in ("weight", "bias"):
            torch.testing.assert_close(
                norm.get_parameter(name).grad, other.get_parameter(name).grad
            )
        torch.testing.assert_close(norm.mean, other.running_mean)
        torch.testing.assert_close(norm.variance, other.running_var)
    norm.eval()
    other.eval()
    before = norm.mean.clone()
    torch.testing.assert_close(norm(x, mask)[mask], other(x[mask]))
    assert torch.equal(norm.mean, before)


@pytest.mark.parametrize("junk", [0.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_does_not_see_what_stands_at_padding(junk: float, training: bool) -> None:
    x, mask = sentences()
    norm, other = BatchNorm(IN).train(training), BatchNorm(IN).train(training)
    expected = other(x, mask)[mask]
    assert torch.equal(norm(x.masked_fill(~mask[..., None], junk), mask)[mask], expected)
    assert expected.isfinite().all()
    assert torch.equal(norm.mean, other.mean)
    assert torch.equal(norm.variance, other.variance)
    assert bool(norm.mean.any()) == training


@pytest.mark.parametrize("more", [1, 5])
def test_batch_norm_does_not_see_how_much_padding_there_is(more: int) -> None:
    norm, other = BatchNorm(IN), BatchNorm(IN)
    x, mask = sentences()
    longer, longer_mask = sentences(longest=max(LENGTHS) + more)
    torch.testing.assert_close(norm(longer, longer_mask)[longer_mask], other(x, mask)[mask])
    torch.testing.assert_close(norm.mean, other.mean)
    torch.testing.assert_close(norm.variance, other.variance)


def test_batch_norm_of_one_token_is_its_bias() -> None:
    norm = shaken(BatchNorm(IN))
    x, mask = sentences(lengths=(1,), longest=3)
    x.requires_grad_()
    y = norm(x, mask)[mask]
    torch.testing.assert_close(y, norm.bias[None])
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(norm.mean, 0.1 * x[0, 0])
    torch.testing.assert_close(norm.variance, torch.full((IN,), 0.9))


def test_batch_norm_leaves_its_statistics_as_they_are_where_there_is_no_token() -> None:
    norm = shaken(BatchNorm(IN))
    x, mask = sentences()
    norm(x, mask)
    mean, variance = norm.mean.clone(), norm.variance.clone()
    x.requires_grad_()
    y = norm(x, torch.zeros_like(mask))
    y.sum().backward()
    assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
    assert torch.equal(norm.mean, mean) and torch.equal(norm.variance, variance)


# -- branches ----------------------------------------------------------------------------------------------------------


def normed(norm: Any, x: Tensor, mask: Tensor) -> Tensor:
    """What a norm with random weights should make of the real tokens [N, D]."""
    x = x[mask]
    if isinstance(norm, RMSNorm):
        return F.rms_norm(x, x.shape[-1:], norm.weight)
    if isinstance(norm, LayerNorm):
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias)
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("norm", ["pre", "peri", "none"])
def test_a_branch_norms_what_its_block_reads_and_writes(norm: Any, norm_type: str) -> None:
    block = FeedForward(IN, DIM)
    branch = shaken(Branch(block, norm=norm, norm_type=NORMS[norm_type], dropout=0.0))
    x, mask = sentences()
    real = torch.ones(1, int(mask.sum()), dtype=torch.bool)
    y = x[mask] if norm == "none" else normed(branch.norm_in, x, mask)
    y = block(y[None], mask=real)
    y = normed(branch.norm_out, y, real) if norm == "peri" else y[0]
    torch.testing.assert_close(branch(x, mask=mask)[mask], y, rtol=1e-4, atol=1e-5)
    norms = {"pre": 1, "peri": 2, "none": 0}[norm]
    each_has = len(list(NORMS[norm_type](1).parameters()))
    assert len(list(branch.parameters())) == len(list(block.parameters())) + norms * each_has


def test_a_branch_norms_each_stream_that_its_block_reads() -> None:
    block = Attention(IN, DIM, heads=2)
    branch = shaken(Branch(block, dropout=0.0))
    x, mask = sentences()
    streams = [x, x.flip(-1), x.square()]
    norm = branch.norm_in
    expected = block(*(F.layer_norm(s, (IN,), norm.weight, norm.bias) for s in streams), mask=mask)
    torch.testing.assert_close(branch(*streams, mask=mask)[mask], expected[mask])


def test_scales_of_a_branch() -> None:
    x, mask = sentences()
    block = FeedForward(IN, DIM)
    make = partial(Branch, block, 2, 9, norm="none", dropout=0.0)
    y = block(x, mask=mask)
    torch.testing.assert_close(make(scale="none")(x, mask=mask), y)
    torch.testing.assert_close(make(scale="depth")(x, mask=mask), y / 3)
    layer_scale: Any = make(scale="layer_scale", scale_init=0.2)
    assert layer_scale.scale.shape == (DIM,)
    torch.testing.assert_close(layer_scale(x, mask=mask), 0.2 * y)
    with torch.no_grad():
        layer_scale.scale.copy_(torch.arange(DIM))
    torch.testing.assert_close(layer_scale(x, mask=mask), torch.arange(DIM) * y)
    rezero: Any = make(scale="rezero")
    assert rezero.scale.shape == (1,)
    assert not rezero(x, mask=mask).any()
    with torch.no_grad():
        rezero.scale.fill_(0.7)
    torch.testing.assert_close(rezero(x, mask=mask), 0.7 * y)


@pytest.mark.parametrize(
    ("scale", "learned"), [("none", 0), ("depth", 0), ("layer_scale", DIM), ("rezero", 1)]
)
def test_scales_of_a_branch_are_learned_or_have_no_weights(scale: Any, learned: int) -> None:
    block = FeedForward(IN, DIM)
    branch = Branch(block, norm="none", scale=scale)
    own = [p for name, p in branch.named_parameters() if not name.startswith("block.")]
    assert sum(p.numel() for p in own) == learned
    x, mask = sentences()
    branch(x, mask=mask)[mask].square().add(branch(x, mask=mask)[mask]).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in own)


def test_drop_path_rises_linearly_up_to_the_last_block_of_the_encoder() -> None:
    branch = partial(Branch, drop_path=0.5)
    encoder: Any = Encoder(IN, Conv, Residual, [2, 3], DIM, branch)
    found = [branch.drop_path for stage in encoder.stages for branch in stage.branches]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(("index", "probability"), [(0, 0.2), (1, 0.4), (2, 0.6)])
def test_drop_path_leaves_out_that_share_of_the_sentences(index: int, probability: float) -> None:
    torch.manual_seed(0)
    block = FeedForward(IN, DIM)
    branch = Branch(block, index, 3, norm="none", dropout=0.0, drop_path=0.6)
    x, mask = torch.randn(1, 3, IN).expand(4000, 3, IN), torch.ones(4000, 3, dtype=torch.bool)
    y, found = block(x[:1], mask=mask[:1]), branch(x, mask=mask)
    kept = found.flatten(1).any(1)
    assert kept.float().mean().item() == pytest.approx(
        1 - probability, abs=0.04
    )  # five standard deviations
    torch.testing.assert_close(found[kept], (y / (1 - probability)).expand(int(kept.sum()), -1, -1))
    assert torch.equal(branch.eval()(x[:1], mask=mask[:1]), y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout and drop_path must be in .*; got 1.0 and 0.0"),
        ({"dropout": -0.1}, "dropout and drop_path must be in .*; got -0.1 and 0.0"),
        ({"drop_path": 1.0}, "dropout and drop_path must be in .*; got 0.1 and 1.0"),
        ({"drop_path": -0.1}, "dropout and drop_path must be in .*; got 0.1 and -0.1"),
    ],
)
def test_impossible_probabilities_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Branch(Conv(IN, DIM), **options)  # type: ignore[arg-type]


# -- transitions -------------------------------------------------------------------------------------------------------

every_pool = pytest.mark.parametrize(
    ("pool", "stride"), [("none", 2), *product(["average", "max", "conv"], [2, 3])], ids=str
)


def pooled(transition: Any, words: Tensor) -> Tensor:
    """What a transition makes of one sentence without padding [L, D], window by window."""
    norm, squeeze, stride = transition.norm, transition.squeeze, transition.stride
    words = F.layer_norm(words, words.shape[-1:], norm.weight, norm.bias).relu()
    rows = []
    for start in range(0, len(words), stride):
        if transition.pool == "conv":
            around = [(k, start + k - 1) for k in range(3) if 0 <= start + k - 1 < len(words)]
            rows.append(
                squeeze.bias + sum(squeeze.weight[:, :, k] @ words[place] for k, place in around)
            )
            continue
        window = [squeeze.weight @ word + squeeze.bias for word in words[start : start + stride]]
        if transition.pool == "max":
            rows.append(torch.stack([max(values) for values in zip(*window, strict=True)]))
        else:
            rows.append(sum(window) / len(window))
    return torch.stack(rows)  # type: ignore[arg-type]


@every_pool
@pytest.mark.parametrize("longest", [0, 12])
def test_a_transition_pools_each_sentence_by_itself(pool: Any, stride: int, longest: int) -> None:
    transition = shaken(Transition(IN, 0.5, pool, stride).double())
    x, mask = sentences(dtype=torch.float64, longest=longest)
    y, left = transition(x, mask)
    step = 1 if pool == "none" else stride
    assert (transition.out_dim, transition.stride) == (6, step)
    assert y.shape == (len(x), math.ceil(mask.shape[1] / step), 6)
    assert left.dtype == torch.bool
    assert left.tolist() == [[j < math.ceil(n / step) for j in range(y.shape[1])] for n in LENGTHS]
    assert_rows(y, left, [pooled(transition, words) for words in each(x, mask)], 1e-10)


@every_pool
def test_batch_mates_do_not_change_what_a_transition_makes_of_a_sentence(
    pool: Any, stride: int
) -> None:
    transition = shaken(Transition(IN, 0.5, pool, stride))
    x, mask = sentences()
    y, left = transition(x, mask)
    for i, words in enumerate(each(x, mask)):
        alone, all_real = transition(words[None], torch.ones(1, len(words), dtype=torch.bool))
        assert all_real.all()
        torch.testing.assert_close(alone[0], y[i, left[i]], rtol=1e-5, atol=1e-5)


@every_pool
def test_gradients_of_a_transition_are_those_of_each_sentence(pool: Any, stride: int) -> None:
    transition = shaken(Transition(IN, 0.5, pool, stride).double())
    x, mask = sentences(dtype=torch.float64, longest=12)
    x.requires_grad_()
    y, left = transition(x, mask)
    inputs = [x, *transition.parameters()]
    found = torch.autograd.grad((y * noise_like(y))[left].sum(), inputs)
    rows = [pooled(transition, words) for words in each(x, mask)]
    losses = [
        (row * noise[: len(row)]).sum() for row, noise in zip(rows, noise_like(y), strict=True)
    ]
    expected = torch.autograd.grad(torch.stack(losses).sum(), inputs)
    for mine, right in zip(found, expected, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, right)


def test_a_transition_under_batch_norm_does_not_see_padding() -> None:
    torch.manual_seed(0)
    transition = Transition(IN, pool="average", norm=BatchNorm)
    other = deepcopy(transition)
    x, mask = sentences()
    longer, longer_mask = sentences(longest=12)
    (y, left), (right, right_left) = transition(longer, longer_mask), other(x, mask)
    torch.testing.assert_close(y[left], right[right_left])
    torch.testing.assert_close(transition.norm.mean, other.norm.mean)


@pytest.mark.parametrize(("compression", "width"), [(0.5, 6), (0.3, 3), (0.01, 1), (1.0, 12)])
def test_a_transition_keeps_a_share_of_the_width(compression: float, width: int) -> None:
    transition, (x, mask) = Transition(IN, compression), sentences()
    y, same = transition(x, mask)
    assert transition.out_dim == y.shape[-1] == width
    assert same is mask


@pytest.mark.parametrize(("compression", "stride"), [(0.0, 2), (-0.5, 2), (1.01, 2), (0.5, 0)])
def test_impossible_transitions_are_named(compression: float, stride: int) -> None:
    message = (
        f"compression must be above 0 and at most 1, stride at least 1; got {compression}, {stride}"
    )
    with pytest.raises(ValueError, match=message):
        Transition(IN, compression, "average", stride)


# -- options of encoders -----------------------------------------------------------------------------------------------


def blocks_of(encoder: Any) -> list[Any]:
    return [branch.block for stage in encoder.stages for branch in stage.branches]


def numbers_in(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("final_norm", "expected"),
    [
        (True, LayerNorm),
        (False, Norm),
        (RMSNorm, RMSNorm),
        (partial(BatchNorm, momentum=0.2), BatchNorm),
    ],
)
def test_the_final_norm_may_be_any(final_norm: Any, expected: type[Norm]) -> None:
    encoder = Encoder(
        DIM, Conv, Residual, 1, DIM, partial(Branch, norm_type=RMSNorm), final_norm=final_norm
    )
    assert type(encoder.norm) is expected


@pytest.mark.parametrize(
    "connection", [Plain, Residual, Highway, partial(Dense, growth_rate=8, bottleneck=2)]
)
def test_shared_blocks_are_one_module(connection: ConnectionFactory) -> None:
    torch.manual_seed(0)
    shared, apart = (Encoder(DIM, Conv, connection, 4, DIM, share=share) for share in (True, False))
    first, *others = blocks_of(shared)
    assert all(block is first for block in others)
    assert len(set(map(id, blocks_of(apart)))) == 4
    assert numbers_in(apart) - numbers_in(shared) == 3 * numbers_in(first)
    branches: Any = shared.stages[0].branches
    assert len({id(branch.norm_in) for branch in branches}) == 4


def test_blocks_are_shared_by_their_place_in_the_list() -> None:
    encoder = Encoder(DIM, [Attention, Conv, Conv], Residual, 6, DIM, share=True)
    attention, conv, other, *again = blocks_of(encoder)
    assert conv is not other
    assert [id(block) for block in again] == [id(attention), id(conv), id(other)]


def test_blocks_of_other_widths_or_stages_have_their_own_weights() -> None:
    encoder = Encoder(IN, Conv, Residual, [3, 3, 1], DIM, share=True)
    first, second, third, fourth, fifth, sixth, seventh = found = blocks_of(encoder)
    assert [block.in_dim for block in found] == [IN, DIM, DIM, DIM // 2, DIM, DIM, DIM // 2]
    assert second is third
    assert fifth is sixth
    assert len({id(block) for block in (first, second, fourth, fifth, seventh)}) == 5


def test_gradients_of_shared_blocks_add_up() -> None:
    torch.manual_seed(0)
    shared = Encoder(
        DIM, [Attention, Conv], Residual, 4, DIM, partial(Branch, dropout=0.0), share=True
    )
    apart = Encoder(DIM, [Attention, Conv], Residual, 4, DIM, partial(Branch, dropout=0.0))
    for mine, theirs in zip(blocks_of(apart), blocks_of(shared), strict=True):
        mine.load_state_dict(theirs.state_dict())
    x, mask = sentences(DIM)
    for encoder in (shared, apart):
        y, _ = encoder(x, mask)
        (y * noise_like(y))[mask].sum().backward()
    torch.testing.assert_close(shared(x, mask)[0][mask], apart(x, mask)[0][mask])
    for i, j in ((0, 2), (1, 3)):
        for name, parameter in blocks_of(shared)[i].named_parameters():
            expected = sum(blocks_of(apart)[k].get_parameter(name).grad for k in (i, j))
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "connection", "depth"),
    [
        (Conv, Residual, 1),
        ([Conv, LSTM], Plain, 2),
        ([Conv, LSTM], Highway, 2),
        (LSTM, partial(Dense, growth_rate=8, bottleneck=0), 4),
        (Conv, Residual, 2),
        (Conv, Highway, [1, 1]),
    ],
)
def test_sharing_is_refused_where_nothing_is_shared(
    block: Any, connection: ConnectionFactory, depth: int | list[int]
) -> None:
    with pytest.raises(
        ValueError, match="share: no two blocks of the list read and write the same widths"
    ):
        Encoder(IN, block, connection, depth, DIM, share=True)


@pytest.mark.parametrize(
    ("pool", "stride", "stages", "expected"),
    [
        ("none", 2, 3, 1),
        ("average", 2, 1, 1),
        ("average", 2, 3, 4),
        ("max", 3, 2, 3),
        ("conv", 2, 2, 2),
    ],
)
def test_the_stride_of_an_encoder_is_that_of_all_its_transitions(
    pool: Any, stride: int, stages: int, expected: int
) -> None:
    torch.manual_seed(0)
    transition = partial(Transition, pool=pool, stride=stride)
    encoder = Encoder(IN, Conv, Residual, [1] * stages, DIM, transition=transition).eval()
    x, mask = sentences()
    y, left = encoder(x, mask)
    assert encoder.stride == expected
    assert left.sum(1).tolist() == [math.ceil(length / expected) for length in LENGTHS]
    assert y.shape[:2] == left.shape
    for i, words in enumerate(each(x, mask)):
        alone, _ = encoder(words[None], torch.ones(1, len(words), dtype=torch.bool))
        torch.testing.assert_close(alone[0], y[i, left[i]], rtol=1e-4, atol=1e-5)


CONNECTIONS: dict[str, ConnectionFactory] = {
    "plain": Plain,
    "residual": Residual,
    "deepnorm": partial(Residual, norm="deepnorm"),
    "highway": Highway,
    "unet": UNetSkips,
    "dense": partial(Dense, growth_rate=8, bottleneck=2),
    "bare dense": partial(Dense, growth_rate=8, bottleneck=0),
    "dual path": partial(DualPath, growth_rate=8),
    "depth weighted": DepthWeighted,
    "attention residuals": partial(AttentionResiduals, span=2),
    "multiway": MultiwayDynamicDense,
    "hyper": partial(HyperConnections, streams=2),
    "constrained": partial(ManifoldConstrainedHyperConnections, streams=3),
}
TRANSFORMER: list[BlockFactory] = [partial(Attention, heads=2), FeedForward]


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("block", [Conv, TRANSFORMER], ids=["conv", "transformer"])
def test_recomputing_changes_neither_values_nor_gradients(block: Any, connection: str) -> None:
    branch = partial(Branch, dropout=0.3, drop_path=0.3)
    torch.manual_seed(0)
    encoder: Any = Encoder(IN, block, CONNECTIONS[connection], [3, 2], DIM, branch)
    other = deepcopy(encoder)
    for stage in other.stages:
        stage.recompute = True
    x, mask = sentences()
    results = []
    for one in (encoder, other):
        torch.manual_seed(7)
        rows = x.clone().requires_grad_()
        y, _ = one(rows, mask)
        (y * noise_like(y))[mask].sum().backward()
        results.append([y, rows.grad, *(p.grad for p in one.parameters())])
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert torch.equal(encoder.eval()(x, mask)[0], other.eval()(x, mask)[0])


@pytest.mark.parametrize(
    "block", [LSTM, GRU, relative, partial(Chain, blocks=[Conv, FeedForward], norm=RMSNorm)]
)
@pytest.mark.parametrize("share", [False, True])
def test_each_block_can_be_recomputed(block: BlockFactory, share: bool) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(DIM, block, Residual, 3, DIM, share=share, recompute=recompute)
        calls: list[int] = []
        blocks_of(encoder)[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        x, mask = sentences(DIM)
        torch.manual_seed(7)
        y, _ = encoder(x, mask)
        (y * noise_like(y))[mask].sum().backward()
        gradients.append([y, *(p.grad for p in encoder.parameters())])
        assert len(calls) == (3 if share else 1) * (2 if recompute else 1)
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "make_encoder",
    [
        partial(Encoder, IN, Conv, Residual, 2, DIM, partial(Branch, norm_type=BatchNorm)),
        partial(Encoder, IN, partial(Chain, blocks=[Conv], norm=BatchNorm), Residual, 2, DIM),
        partial(Encoder, IN, Conv, partial(Dense, norm=BatchNorm), 2, DIM),
        partial(Encoder, IN, Conv, partial(Residual, norm="post", norm_type=BatchNorm), 2, DIM),
    ],
    ids=["branch", "chain", "dense", "stream"],
)
def test_recomputing_is_refused_where_batches_would_count_twice(
    make_encoder: Callable[..., Encoder],
) -> None:
    make_encoder()
    with pytest.raises(
        ValueError, match="recompute would count each batch twice in the statistics of BatchNorm"
    ):
        make_encoder(recompute=True)
