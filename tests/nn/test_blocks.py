"""What holds for several kinds of blocks: order, the initial weights of DeepNorm, and what is refused."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residense.nn.blocks import (
    GRU,
    LSTM,
    Attention,
    Block,
    BlockFactory,
    Conv,
    FeedForward,
    Linear,
    Sequential,
)
from residense.nn.connections import (
    DeepNorm,
    Dense,
)
from residense.nn.encoder import Encoder
from residense.nn.norms import LayerNorm

from .helpers import DIM, IN, sentences, shaken, unpadded

relative = partial(Attention, heads=2, positions="relative")


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
        (partial(Conv, kernel=2, causal=True), True),
        (partial(Attention, positions="none", causal=True), True),
        (partial(Attention, positions="none", window=1), True),
        (Linear, False),
        (FeedForward, False),
        (partial(Sequential, blocks=[FeedForward, Conv]), True),
        (partial(Sequential, blocks=[FeedForward, FeedForward]), False),
    ],
)
def test_order_matters_to_blocks_that_look_at_places(kind: BlockFactory, ordered: bool) -> None:
    torch.manual_seed(0)
    block, x, order = kind(IN, DIM), torch.randn(1, 6, IN), torch.tensor([5, 2, 0, 4, 3, 1])
    mask = unpadded(6)
    assert (
        torch.allclose(block(x[:, order], mask=mask), block(x, mask=mask)[:, order], atol=1e-3)
        != ordered
    )


causal = partial(Conv, kernel=2, causal=True)
CAUSAL: dict[str, BlockFactory] = {
    "conv": causal,
    "dilated": partial(Conv, kernel=3, dilation=2, causal=True, separable=True),
    "attention": partial(Attention, causal=True),
    "relative attention": partial(relative, causal=True, window=3),
    "lstm": partial(LSTM, bidirectional=False),
    "gru": partial(GRU, bidirectional=False),
    "feed-forward": FeedForward,
    "sequential": partial(Sequential, blocks=[causal, causal], norm=LayerNorm),
}
NOT_CAUSAL: dict[str, BlockFactory] = {
    "centered conv": Conv,
    "full attention": Attention,
    "windowed attention": partial(Attention, window=1),
    "bidirectional lstm": LSTM,
}


@torch.no_grad()
@pytest.mark.parametrize("name", [*CAUSAL, *NOT_CAUSAL])
def test_a_causal_block_never_sees_later_tokens(name: str) -> None:
    block = shaken((CAUSAL | NOT_CAUSAL)[name](IN, DIM))
    x, mask = sentences()
    before = block(x, mask=mask)[0]
    differs = []
    for t in range(1, mask.shape[1]):
        other = x.clone()
        other[:, t] += 1
        after = block(other, mask=mask)[0]
        assert not torch.equal(after[t], before[t])
        differs.append(not torch.allclose(after[:t], before[:t], rtol=0, atol=1e-5))
    assert any(differs) == (name in NOT_CAUSAL)


def test_a_linear_block_maps_each_token() -> None:
    x, mask = sentences()
    for bias in (False, True):
        block = Linear(IN, DIM, bias)
        expected = torch.stack([row @ block.linear.weight.T for row in x])
        if bias:
            expected = expected + block.linear.bias
        torch.testing.assert_close(block(x, mask=mask), expected)
        assert (block.linear.bias is not None) == bias


class Own(Block):
    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("kind", "scaled"),
    [
        (Conv, ["conv.weight"]),
        (partial(Conv, kernel=2, causal=True), ["conv.weight"]),
        (partial(Conv, activation="glu"), ["conv.weight"]),
        (partial(Conv, separable=True), ["conv.1.weight"]),
        (Attention, ["out.weight", "value.weight"]),
        (relative, ["out.weight", "value.weight"]),
        (
            partial(Sequential, blocks=[Conv, Attention], norm=LayerNorm),
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
    [
        (LSTM, "LSTM"),
        (GRU, "GRU"),
        (Own, "Own"),
        (partial(Sequential, blocks=[Conv, LSTM]), "LSTM"),
    ],
)
def test_deepnorm_is_refused_where_it_is_not_defined(kind: BlockFactory, name: str) -> None:
    message = f"DeepNorm is not defined for {name}: use PostNorm, or another block"
    with pytest.raises(ValueError, match=message):
        kind(IN, DIM).scale_init(0.5)
    with pytest.raises(ValueError, match=message):
        Encoder(DIM, kind, DeepNorm, 2, DIM)


@pytest.mark.parametrize(
    ("make_block", "message"),
    [
        (
            lambda: Conv(4, 4, kernel=2),
            "kernel must be positive, and odd unless causal; got 2",
        ),
        (
            lambda: Conv(4, 4, kernel=-1),
            "kernel must be positive, and odd unless causal; got -1",
        ),
        (lambda: Conv(4, 4, kernel=0, causal=True), "kernel must be positive"),
        (lambda: Conv(4, 4, dilation=0), "dilation must be at least 1; got 0"),
        (
            lambda: LSTM(4, 5),
            "a bidirectional LSTM needs an even out_dim; got 5",
        ),
        (
            lambda: GRU(4, 5),
            "a bidirectional GRU needs an even out_dim; got 5",
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
        (lambda: Sequential(4, 4, []), "Sequential needs at least one block"),
    ],
)
def test_impossible_blocks_are_refused(make_block: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_block()
