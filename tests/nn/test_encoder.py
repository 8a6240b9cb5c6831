"""Blocks, connections, branches and stages: against loops written out by hand, and by what every encoder must do."""

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.blocks import LSTM, Attention, Block, Conv, FeedForward, rotate
from residense.nn.connections import Connection, Dense, Plain, Residual
from residense.nn.encoder import Branch, Encoder, Transition

IN, DIM, LENGTHS = 12, 16, (7, 1, 4, 7, 3)
BLOCKS: dict[str, Callable[[int, int], Block] | list[Callable[[int, int], Block]]] = {
    "conv": Conv,
    "lstm": LSTM,
    "attention": [partial(Attention, heads=2), FeedForward],
}
CONNECTIONS: dict[str, Callable[[int, int, int], Connection]] = {
    "plain": Plain,
    "residual": Residual,
    "dense": partial(Dense, growth_rate=8, bottleneck=2),
}
every_pair = [pytest.mark.parametrize("block", BLOCKS), pytest.mark.parametrize("connection", CONNECTIONS)]
every_depth = pytest.mark.parametrize("depth", [1, 3, 6, [2, 3]], ids=str)


def each_pair(test: Callable) -> Callable:
    return every_pair[0](every_pair[1](test))


def make(block: str, connection: str, depth: int | list[int], dropout: float = 0.0, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    branch = partial(Branch, dropout=dropout)
    return Encoder(IN, BLOCKS[block], CONNECTIONS[connection], depth, DIM, branch)


def sentences(width: int = IN, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Random sentences with loud junk at padded positions, and their mask."""
    source = torch.Generator().manual_seed(1)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    x = torch.randn(*mask.shape, width, generator=source, dtype=dtype)
    return torch.where(mask[..., None], x, 100 * x), mask


def stages(encoder: Encoder) -> list[Any]:
    """The stages of an encoder; what a module list holds has no type."""
    return list(encoder.stages)


def alone(module: Callable[[Tensor, Tensor], Tensor], x: Tensor, mask: Tensor) -> list[Tensor]:
    """What a module makes of each sentence by itself, without padding."""
    rows = [row[real][None] for row, real in zip(x, mask, strict=True)]
    return [module(row, torch.ones(row.shape[:2], dtype=torch.bool))[0] for row in rows]


def assert_rows(found: Tensor, mask: Tensor, expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for row, real, right in zip(found, mask, expected, strict=True):
        torch.testing.assert_close(row[real], right, rtol=tolerance, atol=tolerance)


# -- what every encoder must do ----------------------------------------------------------------------------------------


@each_pair
@every_depth
def test_batch_mates_and_padding_do_not_change_a_sentence(block: str, connection: str, depth: int | list[int]) -> None:
    encoder = make(block, connection, depth, dropout=0.5).eval()
    x, mask = sentences()
    with torch.no_grad():
        found, same = encoder(x, mask)
        assert torch.equal(same, mask)
        assert found.shape == (*mask.shape, encoder.out_dim)
        assert_rows(found, mask, alone(lambda *s: encoder(*s)[0], x, mask))


@each_pair
@every_depth
def test_permuted_batches_give_permuted_outputs(block: str, connection: str, depth: int | list[int]) -> None:
    encoder = make(block, connection, depth).eval()
    x, mask = sentences()
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        found, expected = encoder(x[order], mask[order])[0], encoder(x, mask)[0][order]
    torch.testing.assert_close(found[mask[order]], expected[mask[order]], rtol=1e-5, atol=1e-5)


@each_pair
@every_depth
def test_gradients_reach_the_input_and_every_parameter(block: str, connection: str, depth: int | list[int]) -> None:
    encoder = make(block, connection, depth)
    x, mask = sentences()
    x.requires_grad_()
    h = encoder(x, mask)[0]
    (h * torch.randn(h.shape, generator=torch.Generator().manual_seed(2)))[mask].sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert x.grad is not None
    assert x.grad[mask].any(-1).all()
    assert not x.grad[~mask].any()


@each_pair
@every_depth
def test_every_pair_learns_a_small_problem(block: str, connection: str, depth: int | list[int]) -> None:
    encoder = make(block, connection, depth)
    x, mask = sentences()
    tags = torch.randint(4, mask.shape, generator=torch.Generator().manual_seed(3))
    head = nn.Linear(encoder(x, mask)[0].shape[-1], 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=5e-3)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(head(encoder(x, mask)[0])[mask], tags[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@each_pair
@pytest.mark.parametrize("depth", [3, [2, 2]], ids=str)
def test_saved_weights_give_the_same_outputs(block: str, connection: str, depth: int | list[int]) -> None:
    encoder, other = (make(block, connection, depth, seed=seed).eval() for seed in (0, 1))
    x, mask = sentences()
    buffer = io.BytesIO()
    torch.save(encoder.state_dict(), buffer)
    buffer.seek(0)
    with torch.no_grad():
        expected = encoder(x, mask)[0][mask]
        assert not torch.allclose(other(x, mask)[0][mask], expected)
        other.load_state_dict(torch.load(buffer))
        assert torch.equal(other(x, mask)[0][mask], expected)


@pytest.mark.parametrize(("connection", "width"), [("plain", DIM), ("residual", DIM), ("dense", (IN + 16) // 2 + 24)])
def test_the_width_that_leaves_an_encoder_is_known(connection: str, width: int) -> None:
    encoder = make("conv", connection, [2, 3])
    x, mask = sentences()
    assert encoder.out_dim == encoder(x, mask)[0].shape[-1] == width
    assert encoder.transitions[0](encoder.stages[0](x, mask), mask)[0].shape[-1] == stages(encoder)[1].connection.in_dim


def test_a_list_of_blocks_is_cycled_through_all_stages() -> None:
    encoder = make("attention", "residual", [3, 2])
    kinds = [type(branch.block) for stage in stages(encoder) for branch in stage.branches]
    assert kinds == [Attention, FeedForward, Attention, FeedForward, Attention]


# -- blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "gelu", "glu"])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 2)])
def test_a_convolution_adds_up_its_window(activation: str, kernel: int, dilation: int) -> None:
    block = Conv(IN, 6, kernel, dilation, activation).double()  # type: ignore[arg-type]
    x, mask = sentences(dtype=torch.float64)
    weight, bias = block.conv.weight, block.conv.bias
    assert bias is not None
    expected = []
    for row, real in zip(x, mask, strict=True):
        words = row[real]
        sums = torch.zeros(len(words), len(weight), dtype=torch.float64) + bias
        for t in range(len(words)):
            for k in range(kernel):
                place = t + dilation * (k - kernel // 2)
                if 0 <= place < len(words):
                    sums[t] += weight[:, :, k] @ words[place]
        if activation == "glu":
            expected.append(sums[:, :6] * sums[:, 6:].sigmoid())
        else:
            expected.append(sums.clamp(min=0) if activation == "relu" else F.gelu(sums))
    assert_rows(block(x, mask=mask), mask, expected, 1e-12)


def test_the_lstm_is_that_of_torch_on_packed_sequences() -> None:
    torch.manual_seed(0)
    block = LSTM(IN, DIM).double()
    other = nn.LSTM(IN, DIM // 2, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for name, parameter in block.ahead.named_parameters():
            other.get_parameter(name).copy_(parameter)
        for name, parameter in block.back.named_parameters():
            other.get_parameter(f"{name}_reverse").copy_(parameter)
    x, mask = sentences(dtype=torch.float64)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    packed = nn.utils.rnn.pack_padded_sequence(theirs, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    found = block(mine, mask=mask)
    torch.testing.assert_close(found[mask], expected[mask])
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (found * noise)[mask].sum().backward()
    (expected * noise)[mask].sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    for name, parameter in block.back.named_parameters():
        torch.testing.assert_close(parameter.grad, other.get_parameter(f"{name}_reverse").grad)


def turned(x: Tensor) -> Tensor:
    """`x` [L, D] with its pairs of channels (d, d + D/2) as complex numbers, turned one by one."""
    half = x.shape[-1] // 2
    y = torch.empty_like(x)
    for t in range(len(x)):
        for d in range(half):
            angle = t / 10_000 ** (2 * d / x.shape[-1])
            number = complex(x[t, d], x[t, d + half]) * complex(math.cos(angle), math.sin(angle))
            y[t, d], y[t, d + half] = number.real, number.imag
    return y


def attend(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one sentence without padding, head by head and token by token."""
    query, key, value = block.query(q), block.key(k), block.value(v)
    width, mixed = query.shape[-1] // block.heads, torch.zeros_like(query)
    for head in (slice(h * width, (h + 1) * width) for h in range(block.heads)):
        a, b = turned(query[:, head]), turned(key[:, head])
        for t in range(len(q)):
            weights = torch.softmax(torch.stack([a[t] @ other for other in b]) / math.sqrt(width), 0)
            mixed[t, head] = sum(weight * row for weight, row in zip(weights, value[:, head], strict=True))
    return block.out(mixed)


@torch.no_grad()
@pytest.mark.parametrize("streams", [1, 2, 3])
def test_attention_is_that_of_each_head_and_token(streams: int) -> None:
    torch.manual_seed(0)
    block = Attention(IN, DIM, heads=2).double()
    for linear in (block.query, block.key, block.value, block.out):
        nn.init.normal_(linear.bias)
    x, mask = sentences(dtype=torch.float64)
    given = [x, x.flip(2), x.square()][:streams]
    expected = []
    for i, real in enumerate(mask):
        rows = [stream[i, real] for stream in given]
        expected.append(attend(block, *rows, *rows[:1] * (3 - streams)))
    assert streams <= block.inputs
    assert_rows(block(*given, mask=mask), mask, expected)  # angles have single precision


@pytest.mark.parametrize("shift", [1, 17, 200])
def test_rotated_scores_depend_on_distances_alone(shift: int) -> None:
    q, k = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    later = [rotate(torch.cat((torch.zeros(shift, 8, dtype=torch.float64), x)))[shift:] for x in (q, k)]
    scores, expected = later[0] @ later[1].T, rotate(q) @ rotate(k).T
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores, q @ k.T, atol=0.1)


@torch.no_grad()
def test_a_sentence_may_stand_anywhere_under_attention() -> None:
    torch.manual_seed(0)
    block = Attention(IN, DIM)
    x = torch.randn(1, 6, IN)
    later, mask = torch.cat((torch.randn(1, 5, IN), x), 1), torch.arange(11)[None] >= 5
    expected = block(x, mask=torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(block(later, mask=mask)[:, 5:], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "ordered"), [(Attention, True), (LSTM, True), (Conv, True), (FeedForward, False)])
def test_order_matters_to_all_blocks_but_the_position_wise_one(kind: type[Block], ordered: bool) -> None:
    torch.manual_seed(0)
    block, x, order = kind(IN, DIM), torch.randn(1, 6, IN), torch.tensor([5, 2, 0, 4, 3, 1])
    mask = torch.ones(1, 6, dtype=torch.bool)
    assert torch.allclose(block(x[:, order], mask=mask), block(x, mask=mask)[:, order], atol=1e-3) != ordered


@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("gelu", F.gelu)])
def test_a_feed_forward_block_has_two_layers(activation: str, function: Callable[[Tensor], Tensor]) -> None:
    block = FeedForward(IN, DIM, 3, activation)  # type: ignore[arg-type]
    x, mask = sentences()
    hidden = function(x @ block.up.weight.T + block.up.bias)
    assert hidden.shape[-1] == 3 * DIM
    torch.testing.assert_close(block(x, mask=mask), hidden @ block.down.weight.T + block.down.bias)


@pytest.mark.parametrize(
    ("make_block", "message"),
    [
        (lambda: Conv(4, 4, kernel=2), "kernel must be odd so that each token is the centre of its window; got 2"),
        (lambda: LSTM(4, 5), "half of its width in each direction; 5 is odd"),
        (lambda: Attention(4, 12, heads=4), r"out_dim must be divisible by 2 \* heads = 8; got 12"),
        (lambda: Encoder(4, Attention, partial(Dense, growth_rate=12)), r"divisible by 2 \* heads = 8; got 12"),
    ],
)
def test_impossible_widths_are_named(make_block: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_block()


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_dim", [DIM, IN])
def test_a_residual_encoder_is_the_pre_norm_loop(in_dim: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(in_dim, [Attention, FeedForward], Residual, 4, DIM, Branch).eval()
    x, mask = sentences(in_dim)
    stage = stages(encoder)[0]
    h = x
    for i, branch in enumerate(stage.branches):
        normed = F.layer_norm(h, h.shape[-1:], branch.norm_in.weight, branch.norm_in.bias)
        y = branch.block(normed, mask=mask)
        skip = h @ stage.connection.project.weight.T if i == 0 and in_dim != DIM else h
        h = skip + y
    norm: Any = encoder.norm
    expected = F.layer_norm(h, (DIM,), norm.weight, norm.bias)
    assert torch.equal(encoder(x, mask)[0][mask], expected[mask])


def test_a_plain_encoder_is_one_block_after_another() -> None:
    torch.manual_seed(0)
    encoder = Encoder(IN, Conv, Plain, 3, DIM, partial(Branch, norm="none"), final_norm=False).eval()
    x, mask = sentences()
    h = x
    for branch in stages(encoder)[0].branches:
        h = branch.block(h, mask=mask)
    assert torch.equal(encoder(x, mask)[0], h)


@pytest.mark.parametrize("bottleneck", [0, 2])
def test_a_dense_encoder_is_the_loop_over_concatenations(bottleneck: int) -> None:
    torch.manual_seed(0)
    connection = partial(Dense, growth_rate=8, bottleneck=bottleneck)
    encoder = Encoder(IN, LSTM, connection, 4, DIM, Branch, final_norm=False).eval()
    x, mask = sentences()
    stage, features = stages(encoder)[0], [x]
    for i, branch in enumerate(stage.branches):
        h = torch.cat(features, -1)
        assert h.shape[-1] == IN + 8 * i
        if bottleneck:
            norm, _, linear = stage.connection.squeeze[i]
            h = F.layer_norm(h, h.shape[-1:], norm.weight, norm.bias).relu() @ linear.weight.T + linear.bias
            assert h.shape[-1] == 8 * bottleneck
        h = F.layer_norm(h, h.shape[-1:], branch.norm_in.weight, branch.norm_in.bias)
        features.append(branch.block(h, mask=mask))
    found = encoder(x, mask)[0]
    torch.testing.assert_close(found[mask], torch.cat(features, -1)[mask])
    assert torch.equal(found[mask][:, :IN], x[mask])


@pytest.mark.parametrize("block", BLOCKS)
def test_a_residual_encoder_whose_blocks_write_nothing_is_the_identity(block: str) -> None:
    branch = partial(Branch, scale=0.0)
    encoder = Encoder(DIM, BLOCKS[block], Residual, 5, DIM, branch, final_norm=False)
    x, mask = sentences(DIM)
    assert torch.equal(encoder(x, mask)[0][mask], x[mask])


def test_a_new_connection_may_hand_several_streams_to_a_block() -> None:
    class Looking(Residual):
        """Each block asks from the current tokens and reads keys and values from the stage's input."""

        def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

        def read(self, state: tuple[Tensor, Tensor], i: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
            return (state[0], state[1], state[1]), state

        def write(self, state: tuple[Tensor, Tensor], y: Tensor, i: int) -> tuple[Tensor, Tensor]:  # type: ignore
            return state[0] + y, state[1]

        def end(self, state: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
            return state[0]

    torch.manual_seed(0)
    encoder = Encoder(DIM, Attention, Looking, 2, DIM, partial(Branch, norm="none"), final_norm=False).eval()
    x, mask = sentences(DIM)
    first, second = (branch.block for branch in stages(encoder)[0].branches)
    h = x + first(x, mask=mask)
    torch.testing.assert_close(encoder(x, mask)[0][mask], (h + second(h, x, x, mask=mask))[mask])


# -- branches and transitions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["pre", "peri", "none"])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_a_branch_norms_and_scales_what_surrounds_its_block(norm: str, scale: float | None) -> None:
    block = FeedForward(IN, DIM)
    branch = Branch(block, norm, scale).eval()  # type: ignore[arg-type]
    x, mask = sentences()
    y = block(x if norm == "none" else F.layer_norm(x, (IN,)), mask=mask)
    y = F.layer_norm(y, (DIM,)) if norm == "peri" else y
    torch.testing.assert_close(branch(x, mask=mask), y if scale is None else scale * y)


def test_drop_path_leaves_out_whole_sentences_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = FeedForward(IN, DIM)
    branch = Branch(block, "none", dropout=0.0, drop_path=0.3)
    x = torch.randn(3, IN).expand(4000, 3, IN)
    mask = torch.ones(4000, 3, dtype=torch.bool)
    y = block(x[:1], mask=mask[:1])
    found = branch(x, mask=mask)
    kept = found.flatten(1).any(1)
    torch.testing.assert_close(found[kept], (y / 0.7).expand(int(kept.sum()), -1, -1))
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.035)  # five standard deviations
    torch.testing.assert_close(found.mean(0), y[0], rtol=0.05, atol=1e-5)
    assert torch.equal(branch.eval()(x[:1], mask=mask[:1]), y)


def test_dropout_belongs_to_training() -> None:
    branch, (x, mask) = Branch(FeedForward(IN, DIM), dropout=0.5), sentences()
    share = (branch(x, mask=mask) == 0).float().mean().item()
    assert 0.3 < share < 0.7
    assert not (branch.eval()(x, mask=mask) == 0).any()


@pytest.mark.parametrize(("compression", "width"), [(0.5, 6), (0.3, 3), (0.01, 1), (1.0, 12)])
def test_a_transition_keeps_a_share_of_the_width(compression: float, width: int) -> None:
    transition, (x, mask) = Transition(IN, compression), sentences()
    y, same = transition(x, mask)
    linear: Any = transition.squeeze[2]
    assert transition.out_dim == y.shape[-1] == width
    assert same is mask
    torch.testing.assert_close(y, F.layer_norm(x, (IN,)).relu() @ linear.weight.T + linear.bias)
