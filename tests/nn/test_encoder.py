"""What every encoder must do, whatever its blocks and connection: the whole grid, and how stages are put together."""

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks import GRU, LSTM, Attention, Block, Chain, Conv, FeedForward
from residense.nn.connections import (
    AttentionResiduals,
    Connection,
    Dense,
    DepthWeighted,
    DualPath,
    Highway,
    HyperConnections,
    ManifoldConstrainedHyperConnections,
    MultiwayDynamicDense,
    Plain,
    Residual,
    UNetSkips,
)
from residense.nn.encoder import Branch, Encoder
from residense.nn.norms import BatchNorm, RMSNorm

IN, DIM, LENGTHS = 12, 16, (7, 1, 4, 7, 3)
BLOCKS: dict[str, Callable[[int, int], Block] | list[Callable[[int, int], Block]]] = {
    "conv": Conv,
    "lstm": LSTM,
    "transformer": [partial(Attention, heads=2), FeedForward],
    "gru": partial(GRU, bidirectional=False),
    "separable": partial(Conv, kernel=5, separable=True, activation="glu"),
    "relative": [
        partial(Attention, heads=2, positions="relative"),
        partial(FeedForward, activation="swiglu"),
    ],
    "chain": partial(Chain, blocks=[Conv, partial(Conv, dilation=2, order="before")], norm=RMSNorm),
}
CONNECTIONS: dict[str, Callable[[int, int, int], Connection]] = {
    "plain": Plain,
    "residual": Residual,
    "post": partial(Residual, norm="post", activation="relu"),
    "highway": Highway,
    "unet": UNetSkips,
    "dense": partial(Dense, growth_rate=8, bottleneck=2),
    "bare dense": partial(Dense, growth_rate=8, bottleneck=0),
    "dual path": partial(DualPath, growth_rate=8),
    "depth-weighted": DepthWeighted,
    "dilated": partial(DepthWeighted, dilation=2, period=3),
    "attention": AttentionResiduals,
    "attention over sums": partial(AttentionResiduals, span=3),
    "multiway": MultiwayDynamicDense,
    "hyper": HyperConnections,
    "static hyper": partial(HyperConnections, streams=2, dynamic=False),
    "manifold": partial(ManifoldConstrainedHyperConnections, streams=3),
    "sinkhorn": partial(ManifoldConstrainedHyperConnections, streams=2, mixing="sinkhorn"),
}
# without a gradient at the first step, and why
SILENT = {
    "multiway": r"dynamic\.\d+\.0\.weight",  # the map behind it is zero
    "hyper": r"connection\.(norms|scales)\.",  # so is the one between them
}
# rounding errors grow a thousandfold where 16 convolutions and norms follow each other without a clear path
AMPLIFIED = {("plain", "conv", 16): 1e-3, ("post", "conv", 16): 1e-3}
GRID = [(block, depth) for block in ("conv", "lstm", "transformer") for depth in (1, 3, 16)]
GRID += [(block, 3) for block in BLOCKS if (block, 3) not in GRID]


def each_pair(test: Callable[..., Any]) -> Callable[..., Any]:
    every_block = pytest.mark.parametrize(("block", "depth"), GRID)
    return every_block(pytest.mark.parametrize("connection", CONNECTIONS)(test))


def make(
    block: str, connection: str, depth: int | list[int], seed: int = 0, **options: Any
) -> Encoder:
    torch.manual_seed(seed)
    branch = options.pop("branch", partial(Branch, dropout=0.0))
    return Encoder(IN, BLOCKS[block], CONNECTIONS[connection], depth, DIM, branch, **options)


def sentences(width: int = IN) -> tuple[Tensor, Tensor]:
    """Random sentences with loud junk at padded positions, and their mask."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    x = torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(1))
    return torch.where(mask[..., None], x, 100 * x), mask


def stages(encoder: Encoder) -> list[Any]:
    """The stages of an encoder; what a module list holds has no type."""
    return list(encoder.stages)


# -- the grid ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@each_pair
def test_a_sentence_does_not_see_its_batch(block: str, connection: str, depth: int) -> None:
    encoder = make(block, connection, depth, branch=partial(Branch, dropout=0.5)).eval()
    for dtype, tolerance in (
        (torch.float32, AMPLIFIED.get((connection, block, depth), 1e-5)),
        (torch.float64, 1e-9),
    ):
        x, mask = sentences()
        x = x.to(dtype)
        found, same = encoder.to(dtype)(x, mask)
        assert torch.equal(same, mask)
        assert found.shape == (*mask.shape, encoder.out_dim)
        order = torch.tensor([3, 0, 4, 2, 1])
        permuted = encoder(x[order], mask[order])[0]
        torch.testing.assert_close(
            permuted[mask[order]], found[order][mask[order]], rtol=tolerance, atol=tolerance
        )
        for row, real, expected in zip(x, mask, found, strict=True):
            alone = encoder(row[real][None], torch.ones(1, int(real.sum()), dtype=torch.bool))[0][0]
            torch.testing.assert_close(alone, expected[real], rtol=tolerance, atol=tolerance)


@each_pair
def test_all_parameters_learn_and_all_is_saved(block: str, connection: str, depth: int) -> None:
    encoder, other = (
        make(block, connection, depth, seed).double() for seed in (0, 1)
    )  # small steps from 1 count
    x, mask = sentences()
    x = x.double().requires_grad_()
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    optimizer = torch.optim.SGD(encoder.parameters(), 1.0)
    noise = torch.randn(*mask.shape, encoder.out_dim, generator=torch.Generator().manual_seed(2))
    for step in range(3):
        optimizer.zero_grad()
        (encoder(x, mask)[0] * noise)[mask].mean().backward()
        if step == 0:
            silent = [
                name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()
            ]
            pattern = SILENT.get(connection)
            assert [
                name for name in silent if pattern is None or not re.search(pattern, name)
            ] == []
            assert x.grad is not None and x.grad[mask].any(-1).all() and not x.grad[~mask].any()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    assert [name for name, p in encoder.named_parameters() if torch.equal(p, before[name])] == []

    buffer = io.BytesIO()
    torch.save(encoder.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    with torch.no_grad():
        assert torch.equal(other.eval()(x, mask)[0][mask], encoder.eval()(x, mask)[0][mask])


@pytest.mark.slow
@pytest.mark.parametrize("block", ["conv", "lstm", "transformer"])
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_every_pair_learns_a_small_problem(block: str, connection: str) -> None:
    encoder = make(block, connection, [2, 2])
    x, mask = sentences()
    tags = torch.randint(4, mask.shape, generator=torch.Generator().manual_seed(3))
    head = nn.Linear(encoder.out_dim, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(50):
        loss = F.cross_entropy(head(encoder(x, mask)[0])[mask], tags[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_blocks_that_start_at_zero_learn_from_the_second_step_on() -> None:
    encoder = make(
        "transformer",
        "residual",
        4,
        branch=partial(Branch, norm="none", scale="rezero", dropout=0.0),
    )
    x, mask = sentences()
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        encoder(x, mask)[0][mask].square().sum().backward()
        blocks = [p.grad for name, p in encoder.named_parameters() if ".block." in name]
        assert any(grad is not None and grad.any() for grad in blocks) == (step == 1)
        optimizer.step()


# -- how stages are put together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "width"), [("plain", 16), ("residual", 16), ("dense", (12 + 16) // 2 + 24)]
)
def test_the_width_that_leaves_an_encoder_is_known(connection: str, width: int) -> None:
    encoder = make("conv", connection, [2, 3])
    x, mask = sentences()
    assert encoder.out_dim == encoder(x, mask)[0].shape[-1] == width
    assert (
        encoder.transitions[0](encoder.stages[0](x, mask), mask)[0].shape[-1]
        == stages(encoder)[1].connection.in_dim
    )


def test_a_list_of_blocks_is_cycled_through_all_stages() -> None:
    encoder = make("transformer", "residual", [3, 2])
    kinds = [type(branch.block) for stage in stages(encoder) for branch in stage.branches]
    assert kinds == [Attention, FeedForward, Attention, FeedForward, Attention]


def test_branches_know_their_place_in_the_whole_encoder() -> None:
    encoder = make("conv", "residual", [2, 3], branch=partial(Branch, drop_path=0.5, scale="depth"))
    branches = [branch for stage in stages(encoder) for branch in stage.branches]
    assert [branch.drop_path for branch in branches] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [branch.scale for branch in branches] == pytest.approx([5**-0.5] * 5)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize(
    "options", [{"drop_path": 0.9}, {"scale": "rezero", "norm": "none"}], ids=str
)
@pytest.mark.filterwarnings("ignore:.*nothing passes by a block")
def test_the_output_depends_on_every_sentence_whatever_a_branch_leaves_out(
    connection: str, options: dict[str, Any]
) -> None:
    encoder = make("conv", connection, 4, branch=partial(Branch, dropout=0.0, **options))
    x, mask = sentences()
    for seed in range(3):
        torch.manual_seed(seed)
        words = x.clone().requires_grad_()
        noise = torch.randn(*mask.shape, encoder.out_dim)
        (encoder(words, mask)[0] * noise)[mask].sum().backward()
        assert words.grad is not None and words.grad.flatten(1).any(1).all()


@pytest.mark.parametrize("options", [{"drop_path": 0.5}, {"scale": "rezero"}], ids=str)
def test_where_nothing_passes_by_a_block_it_is_never_left_out(options: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="nothing passes by a block"):
        encoder = make("conv", "plain", 3, branch=partial(Branch, dropout=0.0, **options))
    control = make("conv", "plain", 3)
    control.load_state_dict(encoder.state_dict())
    x, mask = sentences()
    assert torch.equal(encoder(x, mask)[0], control(x, mask)[0])


def test_a_new_connection_has_something_beside_its_blocks_as_soon_as_it_writes_more_than_they_do() -> (
    None
):
    class Averaged(Connection):
        """The mean of the stream and what the block wrote."""

        def write(self, state: Tensor, y: Tensor, i: int) -> Tensor:
            return (state + y) / 2

    encoder = Encoder(DIM, Conv, Averaged, 2, DIM, partial(Branch, drop_path=0.4))
    assert [branch.drop_path for branch in stages(encoder)[0].branches] == pytest.approx([0.2, 0.4])


def test_a_new_connection_may_hand_several_streams_to_a_block() -> None:
    class Looking(Connection):
        """Each block asks from the current tokens and reads keys and values from the stage's input."""

        def begin(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

        def read(
            self, state: tuple[Tensor, Tensor], i: int
        ) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
            return (state[0], state[1], state[1]), state

        def write(self, state: tuple[Tensor, Tensor], y: Tensor, i: int) -> tuple[Tensor, Tensor]:
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
    first, second = (branch.block for branch in stages(encoder.eval())[0].branches)
    h = x + first(x, mask=mask)
    torch.testing.assert_close(encoder(x, mask)[0][mask], (h + second(h, x, x, mask=mask))[mask])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth and dim must be at least 1, one of each for a stage; got depth 0"),
        ({"depth": []}, "depth and dim must be at least 1"),
        ({"dim": 0}, "dim 0"),
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
        ({"connection": partial(AttentionResiduals, span=0)}, "span must be at least 1"),
        ({"connection": partial(HyperConnections, streams=0)}, "streams must be at least 1"),
        (
            {"connection": partial(ManifoldConstrainedHyperConnections, streams=6)},
            "720 permutations: use mixing",
        ),
        (
            {"block": LSTM, "connection": partial(Residual, norm="deepnorm")},
            "deepnorm is not defined for LSTM",
        ),
        ({"share": True, "depth": 1}, "share: no two blocks"),
        (
            {"branch": partial(Branch, norm_type=BatchNorm), "recompute": True},
            "count each batch twice",
        ),
    ],
)
def test_what_cannot_be_built_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(4, **options)
