"""Options of encoders: stems, one norm for all parts, and strides."""

import math
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from residense.nn.blocks import (
    GRU,
    LSTM,
    Attention,
    BlockFactory,
    Conv,
    FeedForward,
    Linear,
    Sequential,
)
from residense.nn.branch import Branch
from residense.nn.connections import (
    ConnectionFactory,
    DeepNorm,
    Dense,
    DepthWeighted,
    DualPath,
    Highway,
    HyperConnections,
    Plain,
    PostNorm,
    ProjectedResidual,
    Residual,
)
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm, LayerNorm, NoNorm, Norm, RMSNorm
from residense.nn.transition import DenseTransition, PoolTransition

from .grid import CONNECTIONS, make
from .helpers import DIM, IN, LENGTHS, assert_rows, blocks_of, each, sentences, stages_of, unpadded

# -- stems -----------------------------------------------------------------------------------------


def test_a_linear_stem_brings_embeddings_to_the_width_of_the_first_stage() -> None:
    encoder = Encoder(IN, Conv, Residual, [1, 1], [DIM, 8])
    assert isinstance(encoder.stem, Linear)
    assert encoder.stem.linear.weight.shape == (DIM, IN)
    assert encoder.stem.linear.bias is None
    assert Encoder(DIM, Conv, Residual, 1, DIM).stem is None


@pytest.mark.parametrize("in_dim", [IN, DIM])
def test_a_block_may_be_the_stem_at_any_width(in_dim: int) -> None:
    encoder = Encoder(in_dim, FeedForward, Residual, 1, DIM, stem=partial(Conv, kernel=5))
    assert isinstance(encoder.stem, Conv)
    assert (encoder.stem.in_dim, encoder.stem.out_dim) == (in_dim, DIM)
    assert encoder.stem.conv.kernel_size == (5,)


@torch.no_grad()
@pytest.mark.parametrize(
    "connection",
    [
        Plain,
        Residual,
        ProjectedResidual,
        PostNorm,
        Highway,
        Dense,
        DualPath,
        DepthWeighted,
        HyperConnections,
    ],
)
def test_every_connection_begins_with_what_the_stem_made(connection: ConnectionFactory) -> None:
    torch.manual_seed(0)
    encoder = Encoder(IN, Conv, connection, 2, DIM).eval()
    other = Encoder(DIM, Conv, connection, 2, DIM).eval()
    weights = encoder.state_dict()
    other.load_state_dict({k: v for k, v in weights.items() if not k.startswith("stem.")})
    x, mask = sentences()
    expected, _ = other(x @ weights["stem.linear.weight"].T, mask)
    torch.testing.assert_close(encoder(x, mask)[0][mask], expected[mask])


@pytest.mark.parametrize(
    ("connection", "reads"),
    [
        (Plain, [IN, DIM]),
        (ProjectedResidual, [IN, DIM]),
        (partial(Dense, growth_rate=DIM, bottleneck=0), [IN, IN + DIM]),
        (Residual, [DIM, DIM]),
        (Highway, [DIM, DIM]),
    ],
)
def test_without_a_stem_connections_that_can_read_the_embeddings(
    connection: ConnectionFactory, reads: list[int]
) -> None:
    encoder = Encoder(IN, Conv, connection, 2, DIM, stem="none")
    (stage,) = stages_of(encoder)
    assert encoder.stem is None
    assert [block.in_dim for block in blocks_of(encoder)] == reads
    projects = isinstance(stage.project, nn.Linear)  # as `Residual` cannot change the width
    assert projects == (reads[0] == DIM)
    assert hasattr(stage.connection, "projection") == (connection is ProjectedResidual)


# -- one norm for all parts ------------------------------------------------------------------------


def norms_in(module: nn.Module) -> set[type[Norm]]:
    return {type(m) for m in module.modules() if isinstance(m, Norm) and not isinstance(m, NoNorm)}


@pytest.mark.parametrize("norm", [BatchNorm, RMSNorm, LayerNorm])
@pytest.mark.parametrize(
    "connection", [Plain, Residual, ProjectedResidual, PostNorm, DeepNorm, Dense, DualPath]
)
def test_the_norm_of_the_encoder_is_that_of_all_its_parts(
    connection: ConnectionFactory, norm: type[Norm]
) -> None:
    branch = partial(Branch, norm="peri")
    encoder = Encoder(IN, Conv, connection, [2, 1], DIM, branch, norm=norm, stem="none")
    assert norms_in(encoder) == {norm}
    assert type(encoder.norm) is type(encoder.transitions[0].norm) is norm
    own_norms = connection not in (Plain, Residual)
    assert bool(norms_in(stages_of(encoder)[0].connection)) == own_norms


def test_each_part_may_name_another_norm() -> None:
    other = {
        "connection": {"connection": partial(Dense, growth_rate=8, norm=RMSNorm)},
        "branch": {"branch": partial(Branch, norm_type=RMSNorm)},
        "transition": {"transition": partial(DenseTransition, norm=RMSNorm)},
        "norm": {"final_norm": RMSNorm},
    }
    for part, options in other.items():
        options = {"connection": partial(Dense, growth_rate=8)} | options
        encoder: Any = Encoder(IN, Conv, depth=[2, 1], dim=DIM, norm=BatchNorm, **options)
        found = {
            "connection": [stage.connection for stage in encoder.stages],
            "branch": [branch for stage in encoder.stages for branch in stage.branches],
            "transition": encoder.transitions,
            "norm": [encoder.norm],
        }
        for name, modules in found.items():
            for module in modules:
                assert norms_in(module) == {RMSNorm if name == part else BatchNorm}


@pytest.mark.parametrize(
    ("final_norm", "expected"),
    [
        (True, LayerNorm),
        (False, NoNorm),
        (RMSNorm, RMSNorm),
        (partial(BatchNorm, momentum=0.2), BatchNorm),
    ],
)
def test_the_final_norm_may_be_another(final_norm: Any, expected: type[Norm]) -> None:
    encoder = Encoder(
        DIM, Conv, Residual, 1, DIM, partial(Branch, norm_type=RMSNorm), final_norm=final_norm
    )
    assert type(encoder.norm) is expected


@pytest.mark.parametrize(("final_norm", "expected"), [(True, BatchNorm), (False, NoNorm)])
def test_the_final_norm_is_that_of_the_encoder_or_none(
    final_norm: bool, expected: type[Norm]
) -> None:
    encoder = Encoder(DIM, Conv, Residual, 1, DIM, norm=BatchNorm, final_norm=final_norm)
    assert type(encoder.norm) is expected


# -- strides ---------------------------------------------------------------------------------------


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
def test_transitions_multiply_the_stride(
    pool: Any, stride: int, stages: int, expected: int
) -> None:
    torch.manual_seed(0)
    transition = partial(DenseTransition, pool=pool, stride=stride)
    encoder = Encoder(IN, Conv, Residual, [1] * stages, DIM, transition=transition).eval()
    x, mask = sentences()
    y, left = encoder(x, mask)
    assert encoder.stride == expected
    assert left.sum(1).tolist() == [math.ceil(length / expected) for length in LENGTHS]
    assert y.shape[:2] == left.shape
    for i, words in enumerate(each(x, mask)):
        alone, _ = encoder(words[None], unpadded(len(words)))
        torch.testing.assert_close(alone[0], y[i, left[i]], rtol=1e-4, atol=1e-5)


SHORTENING: dict[str, tuple[dict[str, Any], int]] = {
    "stage": ({"depth": 2, "stride": 3}, 3),
    "stages": ({"depth": [1, 2], "stride": 2}, 4),
    "second stage": ({"depth": [1, 1], "stride": [1, 2]}, 2),
    "transition": ({"depth": [1, 1], "transition": PoolTransition}, 2),
    "both": ({"depth": [1, 2, 1], "stride": [1, 2, 2], "transition": PoolTransition}, 16),
    "all kinds": (
        {
            "depth": [1, 1, 1],
            "stride": [2, 1, 2],
            "transition": partial(DenseTransition, pool="average", stride=3),
        },
        36,
    ),
}
shortening = pytest.mark.parametrize("case", SHORTENING)
strided = pytest.mark.parametrize("connection", [Plain, ProjectedResidual])


@torch.no_grad()
@strided
@shortening
def test_strides_of_stages_and_transitions_multiply(
    case: str, connection: ConnectionFactory
) -> None:
    torch.manual_seed(0)
    options, expected = SHORTENING[case]
    encoder = Encoder(IN, partial(Conv, kernel=5), connection, dim=DIM, stem="none", **options)
    encoder.eval()
    x, mask = sentences(lengths=(40, 1, 17, 16, 33))
    y, left = encoder(x, mask)
    assert encoder.stride == expected
    assert left.sum(1).tolist() == [math.ceil(n / expected) for n in (40, 1, 17, 16, 33)]
    assert y.shape == (5, math.ceil(40 / expected), encoder.out_dim)
    for i, words in enumerate(each(x, mask)):
        alone, _ = encoder(words[None], unpadded(len(words)))
        torch.testing.assert_close(alone[0], y[i, left[i]], rtol=1e-4, atol=1e-5)


@strided
@shortening
def test_padding_does_not_change_batch_norms_behind_a_stride(
    case: str, connection: ConnectionFactory
) -> None:
    torch.manual_seed(0)
    options, _ = SHORTENING[case]
    branch = partial(Branch, norm="peri", dropout=0.0)
    encoder = Encoder(
        IN, Conv, connection, dim=DIM, branch=branch, norm=BatchNorm, stem="none", **options
    )
    other = deepcopy(encoder)
    y, left = encoder(*sentences())
    longer, longer_left = other(*sentences(longest=40))
    torch.testing.assert_close(longer[longer_left], y[left], rtol=1e-4, atol=1e-4)
    for mine, right in zip(other.buffers(), encoder.buffers(), strict=True):
        torch.testing.assert_close(mine, right)


@torch.no_grad()
def test_a_strided_stage_is_the_block_of_the_first_resnets() -> None:
    torch.manual_seed(0)
    linear = partial(Conv, activation="none")
    block = partial(Sequential, blocks=[Conv, linear])
    bare = partial(Branch, norm="none", dropout=0.0)
    encoder: Any = Encoder(
        IN, block, ProjectedResidual, 2, DIM, bare, stem="none", stride=2, final_norm=False
    )
    (stage,) = encoder.stages
    first, second = (branch.block for branch in stage.branches)
    x, mask = sentences()
    y, left = encoder(x, mask)
    expected = []
    for words in each(x, mask):
        kept = words[::2] @ stage.connection.projection.weight.T
        norm = stage.connection.norm
        kept = F.layer_norm(kept, (DIM,), norm.weight, norm.bias)
        for inner in (first, second):
            one, two = inner.blocks
            step = 2 if inner is first else 1
            branch = F.conv1d(words.T[None], one.conv.weight, one.conv.bias, step, 1).relu()
            branch = F.conv1d(branch, two.conv.weight, two.conv.bias, padding=1)[0].T
            words = (kept + branch).relu()
            kept = words
        expected.append(words)
    assert_rows(y, left, expected)


@pytest.mark.parametrize(
    "connection",
    [
        name
        for name, options in CONNECTIONS.items()
        if not {"stride", "stem", "branch"} & set(options) and name not in ("plain", "gelu")
    ],
)
def test_connections_that_cannot_shorten_a_sequence_say_so(connection: str) -> None:
    message = r"^\w+ cannot shorten a sequence: use stride 1 and a transition that pools, or .*$"
    with pytest.raises(ValueError, match=message):
        make("conv", connection, stride=2)


@pytest.mark.parametrize("connection", [Plain, ProjectedResidual])
@pytest.mark.parametrize(
    "block",
    [LSTM, GRU, Attention, FeedForward, Linear, partial(Sequential, blocks=[LSTM, Conv])],
)
def test_blocks_that_cannot_shorten_a_sequence_say_so(
    block: BlockFactory, connection: ConnectionFactory
) -> None:
    message = r"^stride 2 needs a block that can shorten a sequence, such as Conv: .*stride.*$"
    with pytest.raises(ValueError, match=message) as error:
        Encoder(IN, block, connection, 2, DIM, stride=2)
    assert "\n" not in str(error.value)


def test_only_the_first_block_of_a_stage_needs_to_shorten_the_sequence() -> None:
    encoder = Encoder(IN, [Conv, FeedForward], Plain, 2, DIM, stride=2)
    first, _, second, _ = blocks_of(encoder)
    assert (first.conv.stride, second.conv.stride) == ((2,), (1,))
