"""Layers that share their weights."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from residense.nn.blocks import LSTM, Attention, Conv
from residense.nn.branch import Branch
from residense.nn.connections import (
    ConnectionFactory,
    Dense,
    Highway,
    Plain,
    ProjectedResidual,
    Residual,
)
from residense.nn.encoder import Encoder

from .helpers import DIM, IN, blocks_of, noise_like, sentences


def numbers_in(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "connection", [Plain, Residual, Highway, partial(Dense, growth_rate=8, bottleneck=2)]
)
def test_tied_blocks_are_one_module(connection: ConnectionFactory) -> None:
    torch.manual_seed(0)
    tied, apart = (Encoder(DIM, Conv, connection, 4, DIM, tie_weights=tie) for tie in (True, False))
    first, *others = blocks_of(tied)
    assert all(block is first for block in others)
    assert len(set(map(id, blocks_of(apart)))) == 4
    assert numbers_in(apart) - numbers_in(tied) == 3 * numbers_in(first)
    branches: Any = tied.stages[0].branches
    assert len({id(branch.norm_in) for branch in branches}) == 4


def test_each_block_of_a_layer_is_tied_to_the_same_one_of_other_layers() -> None:
    encoder = Encoder(DIM, [Attention, Conv, Conv], Residual, 2, DIM, tie_weights=True)
    attention, conv, other, *again = blocks_of(encoder)
    assert conv is not other
    assert [id(block) for block in again] == [id(attention), id(conv), id(other)]


def test_layers_of_other_widths_or_stages_have_their_own_weights() -> None:
    encoder = Encoder(IN, Conv, Plain, [3, 3, 1], DIM, stem="none", tie_weights=True)
    first, second, third, fourth, fifth, sixth, seventh = found = blocks_of(encoder)
    assert [block.in_dim for block in found] == [IN, DIM, DIM, DIM // 2, DIM, DIM, DIM // 2]
    assert second is third
    assert fifth is sixth
    assert len({id(block) for block in (first, second, fourth, fifth, seventh)}) == 5


def test_behind_a_stem_all_layers_of_a_stage_are_tied() -> None:
    encoder = Encoder(IN, Conv, Residual, [3, 2], DIM, tie_weights=True)
    first, second, third, fourth, fifth = blocks_of(encoder)
    assert first is second is third
    assert fourth is fifth
    assert first is not fourth


def test_a_strided_block_has_its_own_weights() -> None:
    encoder = Encoder(DIM, Conv, ProjectedResidual, 3, DIM, stride=2, tie_weights=True)
    first, second, third = blocks_of(encoder)
    assert first is not second
    assert second is third
    assert (first.conv.stride, second.conv.stride) == ((2,), (1,))


def test_gradients_of_tied_blocks_add_up() -> None:
    torch.manual_seed(0)
    tied = Encoder(
        DIM, [Attention, Conv], Residual, 2, DIM, partial(Branch, dropout=0.0), tie_weights=True
    )
    apart = Encoder(DIM, [Attention, Conv], Residual, 2, DIM, partial(Branch, dropout=0.0))
    for mine, theirs in zip(blocks_of(apart), blocks_of(tied), strict=True):
        mine.load_state_dict(theirs.state_dict())
    x, mask = sentences(DIM)
    for encoder in (tied, apart):
        y, _ = encoder(x, mask)
        (y * noise_like(y))[mask].sum().backward()
    torch.testing.assert_close(tied(x, mask)[0][mask], apart(x, mask)[0][mask])
    for i, j in ((0, 2), (1, 3)):
        for name, parameter in blocks_of(tied)[i].named_parameters():
            expected = sum(blocks_of(apart)[k].get_parameter(name).grad for k in (i, j))
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "connection", "depth"),
    [
        (Conv, Residual, 1),
        ([Conv, LSTM], Plain, 1),
        ([Conv, LSTM], Highway, 1),
        (LSTM, partial(Dense, growth_rate=8, bottleneck=0), 4),
        (Conv, Highway, [1, 1]),
        (Conv, ProjectedResidual, 2),
    ],
)
def test_tying_is_refused_where_no_two_blocks_agree(
    block: Any, connection: ConnectionFactory, depth: int | list[int]
) -> None:
    with pytest.raises(
        ValueError, match="tie_weights: no two layers have blocks of the same widths, or depth is"
    ):
        Encoder(IN, block, connection, depth, DIM, stem="none", tie_weights=True)
