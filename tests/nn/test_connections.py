"""Connections against their formulas, what they are at the start, and what they refuse."""

from functools import partial
from math import log2
from typing import Any

import pytest
import torch

from residense.nn.blocks import GRU, LSTM, BlockFactory, Conv, Sequential
from residense.nn.connections import AttentionResiduals, DeepNorm, Layout, PostNorm, Residual
from residense.nn.connections import ManifoldConstrainedHyperConnections as Constrained
from residense.nn.connections.dense import Pieces, append

from .formulas import ADDING, ATTENTION, CASES, DIM, IN, SIMPLE, alone, make, randomise, sentences


@pytest.mark.parametrize("in_dim", [DIM, IN])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_formula(name: str, in_dim: int) -> None:
    connection, formula, block, depth = CASES[name]
    encoder, stage = make(connection, block, in_dim, depth)
    x, mask = sentences(in_dim)
    wanted = [x.requires_grad_(), *stage.parameters()]
    found, blocks = encoder(x, mask)[0][mask], [alone(branch) for branch in stage.branches]
    rows = [
        formula(stage.connection, blocks, stage.project(row[real]))
        for row, real in zip(x, mask, strict=True)
    ]
    expected = torch.cat(rows)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    noise = torch.randn(
        found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    ours, theirs = (torch.autograd.grad((y * noise).sum(), wanted) for y in (found, expected))
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-6)
    assert all(grad.any() for grad in ours)


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
        connection = Constrained(Layout(DIM, DIM, 2), streams, mixing)
        mask = torch.ones(2, 5).bool()
        for _ in range(noise):
            randomise(connection)
        for i in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision):
                found = connection.coefficients(torch.randn(2, 5, streams, DIM), i, mask).mix
            assert (found >= 0).all()
            for axis in (-1, -2):
                torch.testing.assert_close(
                    found.sum(axis), torch.ones(2, 5, streams), rtol=0, atol=1e-6
                )


@torch.no_grad()
def test_sinkhorn_ends_on_rows_and_leaves_columns_near_one() -> None:
    logits = 5 * torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    found = Constrained(Layout(DIM, DIM, 1), 4, "sinkhorn")._doubly_stochastic(logits)
    torch.testing.assert_close(found.sum(-1), torch.ones(200, 4), rtol=0, atol=1e-6)
    assert 0.01 < (found.sum(-2) - 1).abs().amax() < 0.2


@pytest.mark.parametrize("num_layers", [3, [3, 3]], ids=str)
@pytest.mark.parametrize("tie_weights", [False, True])
def test_deepnorm_scales_initial_weights_once(
    tie_weights: bool, num_layers: int | list[int]
) -> None:
    for block in (Conv, ATTENTION[0], partial(Sequential, blocks=[Conv, ATTENTION[0]])):
        (scaled, _), (other, _) = (
            make(
                connection,
                [block],
                depth=1,
                start=True,
                num_layers=num_layers,
                tie_weights=tie_weights,
            )
            for connection in (DeepNorm, PostNorm)
        )
        for (name, weight), start in zip(
            scaled.named_parameters(), other.parameters(), strict=True
        ):
            free = ".block." not in name or weight.ndim == 1 or ".query." in name or ".key." in name
            torch.testing.assert_close(weight, start * (1 if free else 12**-0.25), msg=name)


@pytest.mark.parametrize("block", [LSTM, GRU, partial(Sequential, blocks=[Conv, LSTM])])
def test_deepnorm_refuses_recurrent_blocks(block: BlockFactory) -> None:
    with pytest.raises(ValueError, match="DeepNorm is not defined for"):
        make(DeepNorm, [block])


@pytest.mark.parametrize("first", [1, 2, 3, 5, 8])
def test_pieces_stay_few_and_in_order(first: int) -> None:
    everything = [torch.randn(2, 3, first)]
    pieces: Pieces = append((), everything[0])
    for n in range(1, 40):
        everything.append(torch.randn(2, 3, 1))
        pieces = append(pieces, everything[-1])
        assert len(pieces) <= 1 + log2(n + 1)
        assert torch.equal(torch.cat(pieces, -1), torch.cat(everything, -1))
