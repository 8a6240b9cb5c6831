"""How an encoder is put together: layers, stages, widths, and connections of one's own."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from residense.nn.blocks import LSTM, Attention, Block, Conv, FeedForward
from residense.nn.branch import Branch, Place
from residense.nn.connections import (
    AttentionResiduals,
    Connection,
    DeepNorm,
    Dense,
    DepthWeighted,
    DualPath,
    HyperConnections,
    ManifoldConstrainedHyperConnections,
    Plain,
    Residual,
)
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm, RMSNorm

from .grid import make
from .helpers import DIM, IN, blocks_of, sentences, stages_of

# -- layers and stages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "first", "joined", "width"),
    [
        ("plain", 16, 8, 16),
        ("residual", 16, 8, 16),
        ("projected", 16, 8, 16),
        ("dense", 16 + 2 * 8, 16, 16 + 3 * 8),
        ("dense on embeddings", 12 + 2 * 8, 14, 14 + 3 * 8),
    ],
)
def test_the_widths_of_stages_and_transitions_are_known(
    connection: str, first: int, joined: int, width: int
) -> None:
    encoder: Any = make("conv", connection, [2, 3])
    x, mask = sentences()
    assert encoder.out_dim == encoder(x, mask)[0].shape[-1] == width
    assert encoder.stages[0].out_dim == encoder.transitions[0].in_dim == first
    assert encoder.transitions[0].out_dim == joined
    y, _ = encoder.stages[1](torch.randn(*mask.shape, joined), mask)
    assert y.shape[-1] == width


def test_a_list_of_blocks_is_one_layer() -> None:
    encoder = make("transformer", "residual", [2, 1])
    kinds = [[type(branch.block) for branch in stage.branches] for stage in stages_of(encoder)]
    assert kinds == [[Attention, FeedForward] * 2, [Attention, FeedForward]]
    assert [stage.connection.depth for stage in stages_of(encoder)] == [4, 2]


def test_branches_are_told_their_place_in_the_whole_encoder() -> None:
    places = []

    def branch(block: Block, place: Place) -> Branch:
        places.append(place)
        return Branch(block, place)

    for connection, skips in ((Residual, True), (Plain, False)):
        places.clear()
        Encoder(IN, [Conv, FeedForward], connection, [2, 1], DIM, branch, norm=RMSNorm)
        layers = [1, 1, 2, 2, 3, 3]
        assert places == [Place(i, 6, layers[i], RMSNorm, skips) for i in range(6)]


def test_drop_path_and_scale_depend_on_the_depth_of_the_whole_encoder() -> None:
    encoder = make("conv", "residual", [2, 3], branch=partial(Branch, drop_path=0.5, scale="depth"))
    branches = [branch for stage in stages_of(encoder) for branch in stage.branches]
    assert [branch.drop_path for branch in branches] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [branch.scale for branch in branches] == pytest.approx([5**-0.5] * 5)


def test_stages_may_have_widths_of_their_own() -> None:
    encoder = Encoder(IN, Conv, Residual, [1, 2, 1], [8, 16, 24])
    assert [block.out_dim for block in blocks_of(encoder)] == [8, 16, 16, 24]
    assert [stage.out_dim for stage in stages_of(encoder)] == [8, 16, 24]
    x, mask = sentences()
    assert encoder(x, mask)[0].shape == (*mask.shape, 24)


@torch.no_grad()
def test_an_encoder_is_its_parts_one_after_the_other() -> None:
    encoder: Any = make("conv", "residual", [1, 2], stem=Conv, final_norm=RMSNorm).eval()
    x, mask = sentences()
    first, second = encoder.stages
    y = encoder.stem(x, mask=mask)
    y, _ = first(y, mask)
    y, _ = encoder.transitions[0](y, mask)
    y, _ = second(y, mask)
    assert torch.equal(encoder(x, mask)[0], encoder.norm(y, mask))


# -- connections of one's own ----------------------------------------------------------------------


def test_blocks_of_a_new_connection_may_be_skipped() -> None:
    class Averaged(Connection):
        """The mean of the stream and what the block wrote."""

        def write(self, state: Tensor, y: Tensor, i: int, mask: Tensor) -> Tensor:
            return (state + y) / 2

    encoder = Encoder(DIM, Conv, Averaged, 2, DIM, partial(Branch, drop_path=0.4))
    assert [branch.drop_path for branch in stages_of(encoder)[0].branches] == pytest.approx(
        [0.2, 0.4]
    )


def test_a_new_connection_may_hand_several_streams_to_a_block() -> None:
    class Looking(Connection):
        """Queries come from the current tokens, keys and values from the stage's input."""

        def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

        def read(
            self, state: tuple[Tensor, Tensor], i: int, mask: Tensor
        ) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
            return (state[0], state[1], state[1]), state

        def write(
            self, state: tuple[Tensor, Tensor], y: Tensor, i: int, mask: Tensor
        ) -> tuple[Tensor, Tensor]:
            return state[0] + y, state[1]

        def end(self, state: tuple[Tensor, Tensor]) -> Tensor:
            return state[0]

    torch.manual_seed(0)
    encoder = Encoder(
        DIM,
        partial(Attention, heads=2),
        Looking,
        2,
        DIM,
        partial(Branch, norm="none"),
        final_norm=False,
    )
    x, mask = sentences(DIM)
    first, second = (branch.block for branch in stages_of(encoder.eval())[0].branches)
    h = x + first(x, mask=mask)
    torch.testing.assert_close(encoder(x, mask)[0][mask], (h + second(h, x, x, mask=mask))[mask])


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, r"depth, dim and stride must be at least 1; got \[0\], \[128\] and \[1\]"),
        (
            {"depth": []},
            "depth, dim and stride must have one number for each stage; got .., .. and",
        ),
        ({"dim": 0}, r"must be at least 1; got \[4\], \[0\] and \[1\]"),
        ({"stride": 0}, r"must be at least 1; got \[4\], \[128\] and \[0\]"),
        ({"depth": [1, 2], "dim": [8]}, r"each stage; got \[1, 2\], \[8\] and \[1, 1\]"),
        ({"depth": [1, 2], "stride": [2]}, r"each stage; got \[1, 2\], \[128, 128\] and \[2\]"),
        ({"block": []}, "encoder.block is empty"),
        (
            {"block": Attention, "connection": partial(Dense, growth_rate=12)},
            r"divisible by 2 \* heads = 8; got 12",
        ),
        ({"connection": partial(Dense, growth_rate=0)}, "growth_rate must be at least 1"),
        ({"connection": partial(DualPath, growth_rate=0)}, "growth_rate must be at least 1"),
        (
            {"connection": partial(DepthWeighted, period=0)},
            "dilation and period must be at least 1; got 1 and 0",
        ),
        (
            {"connection": partial(AttentionResiduals, block_size=0)},
            "block_size must be at least 1",
        ),
        ({"connection": partial(HyperConnections, streams=0)}, "streams must be at least 1"),
        (
            {"connection": partial(ManifoldConstrainedHyperConnections, streams=6)},
            "720 permutations: use mixing",
        ),
        (
            {"block": LSTM, "connection": DeepNorm},
            "DeepNorm is not defined for LSTM",
        ),
        ({"tie_weights": True, "depth": 1}, "tie_weights: no two layers"),
        (
            {"branch": partial(Branch, norm_type=BatchNorm), "activation_checkpointing": True},
            "count each batch twice",
        ),
    ],
)
def test_impossible_encoders_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(4, **options)
