"""Connection maps against the formulas of the connections, with one source silenced at a time."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from residense.nn.blocks import Conv
from residense.nn.connection_map import connection_maps, replay
from residense.nn.connections import Connection, Dense, Layout, Plain, ProjectedResidual, Residual
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm

from .formulas import CASES, DIM, IN, alone, make, sentences


def recorded(formula: Any, stage: Any, x: Tensor) -> list[Tensor]:
    """The input of a stage and what each block writes, for one sentence [L, D]."""
    sources = [stage.project(x)]

    def run(branch: Any, *streams: Tensor) -> Tensor:
        sources.append(alone(branch)(*streams))
        return sources[-1]

    formula(stage.connection, [partial(run, branch) for branch in stage.branches], sources[0])
    return sources


def reads(formula: Any, connection: Connection, sources: list[Tensor]) -> list[Tensor]:
    """What each block reads if the blocks write the given outputs, and what leaves the stage."""
    found = []

    def write(new: Tensor, *streams: Tensor) -> Tensor:
        found.append(torch.stack(streams))
        return new

    left = formula(connection, [partial(write, new) for new in sources[1:]], sources[0])
    return [*found, left]


@torch.no_grad()
@pytest.mark.parametrize("in_dim", [DIM, IN])
@pytest.mark.parametrize("name", CASES)
def test_a_map_is_what_each_read_loses(name: str, in_dim: int) -> None:
    connection, formula, block, depth = CASES[name]
    encoder, stage = make(connection, block, in_dim, depth)
    x, mask = sentences(in_dim)
    energy = torch.zeros(depth + 1, depth + 1, dtype=torch.float64)
    for row, real in zip(x, mask, strict=True):
        sources = recorded(formula, stage, row[real])
        whole = reads(formula, stage.connection, sources)
        for s, source in enumerate(sources):
            silenced = [*sources[:s], torch.zeros_like(source), *sources[s + 1 :]]
            without = reads(formula, stage.connection, silenced)
            for i, (before, after) in enumerate(zip(whole, without, strict=True)):
                energy[i, s] += (before - after).square().sum()
    (found,) = connection_maps(encoder, x, mask)
    expected = energy / energy.sum(1, keepdim=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_plain_stack_reads_the_block_before() -> None:
    (found,) = connection_maps(make(Plain)[0], *sentences(DIM))
    assert torch.equal(found, torch.eye(5))


def test_a_connection_of_a_user_has_a_map() -> None:
    class Looking(Connection):
        """Each block reads the sum of the input and the last output."""

        def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.zeros_like(x)

        def read(
            self, state: tuple[Tensor, Tensor], i: int, mask: Tensor
        ) -> tuple[tuple[Tensor], tuple[Tensor, Tensor]]:
            return (state[0] + state[1],), state

        def write(
            self, state: tuple[Tensor, Tensor], y: Tensor, i: int, mask: Tensor
        ) -> tuple[Tensor, Tensor]:
            return state[0], y

        def end(self, state: tuple[Tensor, Tensor]) -> Tensor:
            return state[1]

    (found,) = connection_maps(make(Looking)[0], *sentences(DIM))
    pattern = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert torch.equal(found > 0, torch.tensor(pattern).bool())


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_a_replay_with_the_recorded_outputs_is_the_forward_pass(name: str) -> None:
    connection, _, block, depth = CASES[name]
    encoder, stage = make(connection, block, IN, depth)
    x, mask = sentences(IN)
    outputs: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda *args: outputs.append(args[2])) for b in stage.branches]
    expected, _ = encoder(x, mask)
    for hook in hooks:
        hook.remove()
    (found,) = replay(stage.connection, [stage.project(x), *outputs], mask, mask)[-1]
    assert torch.equal(found[mask], expected[mask])


@pytest.mark.parametrize("name", CASES)
def test_padding_does_not_change_a_map(name: str) -> None:
    connection, _, block, depth = CASES[name]
    encoder, _ = make(connection, block, depth=depth)
    (found,) = connection_maps(encoder, *sentences(DIM))
    assert torch.equal(found, found.tril())
    torch.testing.assert_close(found.sum(1), torch.ones(depth + 1))
    for options in ({"seed": 7, "loud": 3.0}, {"longer": 4}):
        (again,) = connection_maps(encoder, *sentences(DIM, **options))
        torch.testing.assert_close(again, found, rtol=1e-5, atol=1e-6)


def test_each_stage_has_a_map() -> None:
    encoder, _ = make(Residual, [Conv], depth=1, num_layers=[2, 3])
    maps = connection_maps(encoder, *sentences(DIM))
    assert [found.shape for found in maps] == [(3, 3), (4, 4)]


def test_a_stage_that_shortens_the_sequence_has_a_map() -> None:
    encoder = Encoder(IN, Conv, ProjectedResidual, 3, DIM, stem="none", stride=2).double()
    (found,) = connection_maps(encoder, *sentences(IN))
    torch.testing.assert_close(found.sum(1), torch.ones(4))
    assert torch.equal(found > 0, torch.ones(4, 4).tril().bool())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_measuring_leaves_no_trace(name: str, training: bool) -> None:
    connection, _, block, depth = CASES[name]
    encoder, _ = make(connection, block, depth=depth, norm_type=BatchNorm, dropout=0.3)
    x, mask = sentences(DIM)

    def outputs() -> Tensor:
        torch.manual_seed(5)
        encoder.load_state_dict(before)
        return encoder(x, mask)[0][mask]

    encoder.train(training)(x, mask)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    expected = outputs()
    drawn = torch.get_rng_state()
    encoder.load_state_dict(before)
    connection_maps(encoder, x, mask)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    for module in encoder.modules():
        assert module.training == training
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert torch.equal(outputs(), expected)


def test_a_dense_stage_ends_in_the_concatenation_of_its_sources() -> None:
    connection = Dense(Layout(4, 4, 2), growth_rate=2)
    sources = [torch.randn(1, 3, 4), torch.randn(1, 3, 2), torch.randn(1, 3, 2)]
    mask = torch.ones(1, 3, dtype=torch.bool)
    *_, (left,) = replay(connection, sources, mask, mask)
    assert torch.equal(left, torch.cat(sources, -1))
