"""Branches: norms, scales, dropout and drop path around a block."""

import math
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from residense.nn.blocks import Attention, Block, Conv, FeedForward
from residense.nn.branch import Branch, Place
from residense.nn.connections import Residual
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm, LayerNorm, NoNorm, NormFactory, RMSNorm

from .helpers import DIM, IN, sentences, shaken

NORMS: dict[str, NormFactory] = {"layer": LayerNorm, "rms": RMSNorm, "batch": BatchNorm}


def normed(norm: Any, x: Tensor, mask: Tensor) -> Tensor:
    """The real tokens [N, D], normalized by the functions of torch."""
    x = x[mask]
    if isinstance(norm, RMSNorm):
        return F.rms_norm(x, x.shape[-1:], norm.weight)
    if isinstance(norm, LayerNorm):
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias)
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("norm", ["pre", "peri", "none"])
def test_a_branch_normalizes_what_its_block_reads_and_writes(norm: Any, norm_type: str) -> None:
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


def test_a_branch_normalizes_each_stream_that_its_block_reads() -> None:
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
    make = partial(Branch, block, Place(2, 9), norm="none", dropout=0.0)
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
def test_drop_path_skips_that_fraction_of_the_sentences(index: int, probability: float) -> None:
    torch.manual_seed(0)
    block = FeedForward(IN, DIM)
    branch = Branch(block, Place(index, 3), norm="none", dropout=0.0, drop_path=0.6)
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
def test_impossible_probabilities_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Branch(Conv(IN, DIM), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [1, 2, 9])
def test_the_scaled_norm_is_divided_by_the_root_of_the_layer(layer: int) -> None:
    block = FeedForward(IN, DIM)
    branch = Branch(block, Place(layer=layer), norm="scaled", norm_type=RMSNorm, dropout=0.0)
    branch = shaken(branch)
    x, mask = sentences()
    read = F.rms_norm(x, (IN,), branch.norm_in.weight) / math.sqrt(layer)
    torch.testing.assert_close(branch(x, mask=mask), block(read, mask=mask))
    assert isinstance(branch.norm_out, NoNorm)


def test_layers_of_the_scaled_norm_are_counted_in_the_whole_encoder() -> None:
    branch = partial(Branch, norm="scaled")
    encoder: Any = Encoder(IN, [Conv, FeedForward], Residual, [2, 1], DIM, branch)
    found = [branch.norm_scale for stage in encoder.stages for branch in stage.branches]
    assert found == pytest.approx([1, 1, 2**-0.5, 2**-0.5, 3**-0.5, 3**-0.5])


def test_a_branch_has_the_norm_of_the_encoder_unless_it_names_another() -> None:
    block, place = FeedForward(IN, DIM), Place(norm=RMSNorm)
    assert isinstance(Branch(block).norm_in, LayerNorm)
    own = Branch(block, place, "peri", BatchNorm)
    handed_down = Branch(block, place, "peri")
    for branch, kind in ((own, BatchNorm), (handed_down, RMSNorm)):
        assert type(branch.norm_in) is type(branch.norm_out) is kind
    none = Branch(block, place, "none", BatchNorm)
    assert type(none.norm_in) is type(none.norm_out) is NoNorm


@pytest.mark.parametrize("norm", ["pre", "peri", "scaled", "none"])
def test_behind_a_stride_the_mask_is_that_of_the_output(norm: Any) -> None:
    block = Conv(IN, DIM, stride=2)
    branch = shaken(Branch(block, Place(layer=4), norm, BatchNorm, dropout=0.0))
    x, mask = sentences()
    left = mask[:, ::2]
    read = x
    if norm != "none":
        real = normed(branch.norm_in, x, mask)
        read = torch.zeros_like(x).masked_scatter(mask[..., None], real)
    y = block(read / 2 if norm == "scaled" else read, mask=mask)
    expected = normed(branch.norm_out, y, left) if norm == "peri" else y[left]
    found = branch(x, mask=mask, out_mask=left)[left]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Wrong(Block):
    """A block that returns another shape than it promises."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__(IN, DIM)
        self.shape = shape

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return x.new_zeros(self.shape)


@pytest.mark.parametrize("shape", [(5, 7, IN), (5, 4, DIM), (4, 7, DIM)])
def test_a_block_that_returns_another_shape_is_named(shape: tuple[int, ...]) -> None:
    x, mask = sentences()
    message = f"Wrong returned a tensor of shape {shape}; expected (5, 7, {DIM})"
    with pytest.raises(ValueError, match=re.escape(message)):
        Branch(Wrong(shape))(x, mask=mask)


@pytest.mark.parametrize("options", [{"drop_path": 0.5}, {"scale": "rezero"}], ids=str)
def test_what_writes_zeros_is_off_where_nothing_flows_around(options: dict[str, Any]) -> None:
    block = FeedForward(IN, DIM)
    x, mask = sentences()
    with pytest.warns(UserWarning, match="nothing flows around a block"):
        branch = Branch(block, Place(skips=False), "none", dropout=0.0, **options)
    assert torch.equal(branch(x, mask=mask), block(x, mask=mask))
