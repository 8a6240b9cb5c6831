"""Whole encoders against the modules of torch, and against published networks written out the usual way."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from residense.nn.blocks import GRU, LSTM, Attention, Conv, FeedForward
from residense.nn.branch import Branch
from residense.nn.connections import Dense, Plain, PostNorm, Residual
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm, LayerNorm

IN, DIM, LENGTHS = 6, 8, (5, 1, 3, 5)
bare = partial(Branch, norm="none", dropout=0.0)
Weights = Mapping[str, Tensor]


@pytest.fixture(autouse=True)
def _without_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def sentences(width: int, lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Random sentences with loud junk at padded positions, and their mask."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    source = torch.Generator().manual_seed(1)
    x = torch.randn(*mask.shape, width, generator=source, dtype=torch.float64)
    return torch.where(mask[..., None], x, 100 * x).requires_grad_(), mask


def random(make: Callable[[], Any]) -> Any:
    """A module in double precision whose parameters are all random."""
    torch.manual_seed(0)
    module = make().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def assert_same_gradients(found: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    """The same values, and gradients of what both were computed from."""
    assert_equal(found, expected)
    noise = torch.randn(
        found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    ours, theirs = (torch.autograd.grad((y * noise).sum(), wanted) for y in (found, expected))
    assert ours[0].any()
    for mine, right in zip(ours, theirs, strict=True):
        assert_equal(mine, right)


# -- recurrent stacks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_dim", [DIM, IN])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(("block", "layers"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
def test_plain_recurrent_blocks_are_the_layers_of_torch(
    block: Any, layers: Any, depth: int, in_dim: int
) -> None:
    encoder = random(
        lambda: Encoder(in_dim, block, Plain, depth, DIM, bare, final_norm=False, stem="none")
    )
    other = layers(in_dim, DIM // 2, depth, batch_first=True, bidirectional=True).double()
    x, mask = sentences(in_dim)
    theirs, names = x.detach().clone().requires_grad_(), {}
    for i, branch in enumerate(encoder.stages[0].branches):
        for side, layer in (
            ("", branch.block.forward_rnn),
            ("_reverse", branch.block.backward_rnn),
        ):
            names |= {
                name.replace("_l0", f"_l{i}{side}"): weight
                for name, weight in layer.named_parameters()
            }
    other.load_state_dict(names)
    packed = nn.utils.rnn.pack_padded_sequence(
        theirs, mask.sum(1), batch_first=True, enforce_sorted=False
    )
    expected, _ = nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    found = encoder(x, mask)[0]
    assert_equal(found[mask], expected[mask])
    noise = torch.randn(
        found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    for y in (found, expected):
        (y * noise)[mask].sum().backward()
    assert x.grad is not None and theirs.grad is not None and x.grad[mask].any()
    assert_equal(x.grad, theirs.grad)
    for name, weight in other.named_parameters():
        assert_equal(names[name].grad, weight.grad)


# -- Transformers ------------------------------------------------------------------------------------------------------


def transformer_weights(encoder: Any, post: bool) -> Weights:
    """Our weights under the names of `nn.TransformerEncoder`."""
    stage, weights = encoder.stages[0], {}
    norms = stage.connection.norms if post else [branch.norm_in for branch in stage.branches]
    for i, branch in enumerate(stage.branches):
        attention, block = i % 2 == 0, branch.block
        parts = {f"norm{i % 2 + 1}": norms[i]}
        parts |= (
            {"self_attn.out_proj": block.out}
            if attention
            else {"linear1": block.up, "linear2": block.down}
        )
        for name, part in parts.items():
            weights |= {
                f"layers.{i // 2}.{name}.{kind}": getattr(part, kind) for kind in ("weight", "bias")
            }
        if attention:
            for kind in ("weight", "bias"):
                stacked = torch.cat(
                    [getattr(part, kind) for part in (block.query, block.key, block.value)]
                )
                weights[f"layers.{i // 2}.self_attn.in_proj_{kind}"] = stacked
    return (
        weights
        if post
        else weights | {"norm.weight": encoder.norm.weight, "norm.bias": encoder.norm.bias}
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("post", [True, False])
def test_residual_attention_is_the_transformer_of_torch(
    post: bool, activation: Any, training: bool
) -> None:
    blocks: Any = [
        partial(Attention, heads=2, positions="none"),
        partial(FeedForward, expansion=2, activation=activation),
    ]
    connection = PostNorm if post else Residual
    branch = partial(Branch, norm="none" if post else "pre", dropout=0.0)
    encoder = random(
        lambda: Encoder(DIM, blocks, connection, 3, DIM, branch, final_norm=not post)
    ).train(training)
    layer = nn.TransformerEncoderLayer(
        DIM, 2, 2 * DIM, 0.0, activation, batch_first=True, norm_first=not post
    )
    last = None if post else nn.LayerNorm(DIM)
    other = (
        nn.TransformerEncoder(layer, 3, last, enable_nested_tensor=False).double().train(training)
    )
    weights = transformer_weights(encoder, post)
    assert {name: w.shape for name, w in weights.items()} == {
        n: p.shape for n, p in other.named_parameters()
    }
    x, mask = sentences(DIM)
    expected = functional_call(other, dict(weights), (x,), {"src_key_padding_mask": ~mask})
    assert_same_gradients(encoder(x, mask)[0][mask], expected[mask], [x, *encoder.parameters()])


# -- DenseNet-BC -------------------------------------------------------------------------------------------------------


def normed(norm: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """`norm` of `x` [B, C, L]: of its real tokens, if there is padding."""
    if mask.all():
        return norm(x)
    y = torch.zeros_like(x.mT)
    y[mask] = norm(x.mT[mask])
    return y.mT


def convolved(conv: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """`conv` of `x` [B, C, L]: of each sentence by itself, if there is padding."""
    if mask.all():
        return conv(x)
    rows = [conv(row[None, :, real])[0] for row, real in zip(x, mask, strict=True)]
    return torch.stack([F.pad(row, (0, x.shape[-1] - row.shape[-1])) for row in rows])


class DenseLayer(nn.Module):
    def __init__(self, width: int, growth: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm1d(width), nn.Conv1d(width, 4 * growth, 1)
        self.norm2, self.conv2 = (
            nn.BatchNorm1d(4 * growth),
            nn.Conv1d(4 * growth, growth, 3, padding=1),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = convolved(self.conv1, normed(self.norm1, x, mask).relu(), mask)
        y = convolved(self.conv2, normed(self.norm2, y, mask).relu(), mask)
        return torch.cat((x, y), 1)


class DenseNet(nn.Module):
    """Two dense blocks around a transition   (arXiv 1608.06993), for words: nothing is pooled, and the last norm is one
    over the width."""

    def __init__(self, width: int, growth: int, depths: tuple[int, int]):
        super().__init__()
        self.blocks = nn.ModuleList()
        for i, depth in enumerate(depths):
            if i:
                self.norm, self.conv = nn.BatchNorm1d(width), nn.Conv1d(width, width // 2, 1)
                width //= 2
            self.blocks.append(
                nn.ModuleList(DenseLayer(width + growth * j, growth) for j in range(depth))
            )
            width += growth * depth
        self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x.mT
        for i, block in enumerate(self.blocks):
            x = convolved(self.conv, normed(self.norm, x, mask).relu(), mask) if i else x
            for layer in block.children():
                x = layer(x, mask)
        return self.last(x.mT)


def dense_weights(encoder: Any) -> Weights:
    """Our weights under the names of `DenseNet`, each of whose layers has random scales of its own in its first norm.

    relu(g (w n + b)) = g relu(w n + b) for g > 0: what a layer scales by g, its 1x1 convolution can divide by g.
    """
    weights: dict[str, Tensor] = {}

    def put(name: str, module: Any, scale: Tensor | None = None, kernel: bool = False) -> None:
        weight = module.weight if scale is None else module.weight / scale
        weights.update(
            {f"{name}.weight": weight[..., None] if kernel else weight, f"{name}.bias": module.bias}
        )

    for b, stage in enumerate(encoder.stages):
        sources = stage.connection.norms
        for i, (branch, squeeze) in enumerate(
            zip(stage.branches, stage.connection.squeeze, strict=True)
        ):
            name, scale = (
                f"blocks.{b}.{i}",
                0.5 + torch.rand(squeeze.in_features, dtype=torch.float64),
            )
            for kind in ("weight", "bias"):
                weights[f"{name}.norm1.{kind}"] = scale * torch.cat(
                    [getattr(n, kind) for n in sources[: i + 1]]
                )
            put(f"{name}.conv1", squeeze, scale, kernel=True)
            put(f"{name}.norm2", branch.norm_in)
            put(f"{name}.conv2", branch.block.conv)
    put("norm", encoder.transitions[0].norm)
    put("conv", encoder.transitions[0].squeeze, kernel=True)
    put("last", encoder.norm)
    return weights


@pytest.mark.parametrize("lengths", [LENGTHS, (5, 5, 5)], ids=["padded", "equal"])
def test_dense_convolutions_are_a_densenet(lengths: tuple[int, ...]) -> None:
    growth = 3
    depths = (3, 2)
    connection = partial(Dense, growth_rate=growth, bottleneck=4)
    branch = partial(Branch, norm="pre", dropout=0.0)
    block = partial(Conv, order="before", activation="relu")
    encoder = random(
        lambda: Encoder(
            IN,
            block,
            connection,
            list(depths),
            DIM,
            branch,
            norm=BatchNorm,
            final_norm=LayerNorm,
            stem="none",
        )
    )
    other = DenseNet(IN, growth, depths).double()
    x, mask = sentences(IN, lengths)
    for training in (True, True, False):  # evaluation shows the running statistics of both
        weights = dense_weights(encoder)
        assert {name: w.shape for name, w in weights.items()} == {
            n: p.shape for n, p in other.named_parameters()
        }
        expected = functional_call(other.train(training), dict(weights), (x, mask))
        assert_same_gradients(
            encoder.train(training)(x, mask)[0][mask], expected[mask], [x, *encoder.parameters()]
        )
