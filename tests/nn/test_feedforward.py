"""Feed-forward blocks against two matrix products."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from residense.nn.blocks import FeedForward

from .helpers import DIM, IN, sentences


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


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_dropout_acts_on_the_hidden_layer_in_training_only(activation: Any) -> None:
    block = FeedForward(IN, 4, 250, activation, dropout=0.3).eval()
    without = FeedForward(IN, 4, 250, activation)
    without.load_state_dict(block.state_dict())
    x, mask = sentences()
    hidden: list[Tensor] = []
    block.down.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    assert torch.equal(block(x, mask=mask), without(x, mask=mask))
    torch.manual_seed(0)
    block.train()(x, mask=mask)
    full, dropped = (values[mask] for values in hidden)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], full[kept] / 0.7)
    relevant = full != 0  # a ReLU leaves zeros
    assert kept[relevant].float().mean().item() == pytest.approx(0.7, abs=0.02)
