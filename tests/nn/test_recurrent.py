"""Recurrent blocks against those of torch on packed sequences."""

import pytest
import torch
from torch import nn

from residense.nn.blocks import GRU, LSTM

from .helpers import DIM, IN, LENGTHS, noise_like, sentences


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("kind", "layer"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
def test_recurrent_blocks_are_those_of_torch_on_packed_sequences(
    kind: type[LSTM | GRU], layer: type[nn.LSTM | nn.GRU], bidirectional: bool
) -> None:
    torch.manual_seed(0)
    block = kind(IN, DIM, bidirectional).double()
    width = DIM // 2 if bidirectional else DIM
    other = layer(IN, width, batch_first=True, bidirectional=bidirectional).double()
    pairs = dict(block.forward_rnn.named_parameters())
    if block.backward_rnn is not None:
        pairs |= {
            f"{name}_reverse": parameter
            for name, parameter in block.backward_rnn.named_parameters()
        }
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
    assert block.backward_rnn is not None
    for layer in (block.forward_rnn, block.backward_rnn):
        for gate in layer.get_parameter("weight_hh_l0").chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(DIM // 2), rtol=1e-5, atol=1e-5)
        if kind is LSTM:
            assert (layer.get_parameter("bias_ih_l0").chunk(4)[1] == 1).all()


def test_one_direction_may_have_an_odd_width() -> None:
    x, mask = sentences()
    assert LSTM(IN, 5, bidirectional=False)(x, mask=mask).shape == (*mask.shape, 5)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_two_directions_need_an_even_width(kind: type[LSTM | GRU]) -> None:
    message = f"a bidirectional {kind.__name__} needs an even out_dim; got 5"
    with pytest.raises(ValueError, match=message):
        kind(IN, 5)
