"""Attention against loops over heads and tokens."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from residense.nn.blocks import Attention
from residense.nn.blocks.attention import rotate

from .helpers import DIM, IN, assert_rows, each, sentences, shaken, unpadded


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


def distance_code(distance: int, width: int) -> Tensor:
    angles = [distance / 10_000 ** (2 * d / width) for d in range(width // 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)


def scores(block: Attention, query: Tensor, key: Tensor, head: slice) -> Tensor:
    """The scores of one head for each pair of tokens of one sentence [L, L], before the softmax."""
    q, k, width = query[:, head], key[:, head], head.stop - head.start
    if block.positions == "rotary":
        q, k = turned(q), turned(k)
    found = torch.empty(len(q), len(q), dtype=q.dtype)
    for i, j in product(range(len(q)), repeat=2):
        if block.positions == "relative":
            u, v, code = (
                block.content_bias[head],
                block.position_bias[head],
                distance_code(i - j, width),
            )
            found[i, j] = q[i] @ k[j] + q[i] @ code + u @ k[j] + v @ code
        else:
            found[i, j] = q[i] @ k[j] / math.sqrt(width)
    return found


def attend(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one sentence without padding, head by head and token by token."""
    query, key, value = block.query(q), block.key(k), block.value(v)
    width, mixed = query.shape[-1] // block.heads, torch.zeros_like(query)
    for head in (slice(h * width, (h + 1) * width) for h in range(block.heads)):
        for t, row in enumerate(scores(block, query, key, head)):
            weights = row.exp() / row.exp().sum()
            mixed[t, head] = sum(
                weight * other for weight, other in zip(weights, value[:, head], strict=True)
            )
    return block.out(mixed)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
@pytest.mark.parametrize("streams", [1, 2, 3])
def test_attention_is_computed_by_head_and_token(streams: int, positions: Any) -> None:
    block = shaken(Attention(IN, DIM, 2, positions).double())
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
    later = [
        rotate(torch.cat((torch.zeros(shift, 8, dtype=torch.float64), x)))[shift:] for x in (q, k)
    ]
    found, expected = later[0] @ later[1].T, rotate(q) @ rotate(k).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, q @ k.T, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_attention_depends_on_distances_alone(positions: Any) -> None:
    block = shaken(Attention(IN, DIM, 4, positions))
    x = torch.randn(1, 6, IN)
    later, mask = torch.cat((torch.randn(1, 5, IN), x), 1), torch.arange(11)[None] >= 5
    expected = block(x, mask=unpadded(6))
    torch.testing.assert_close(block(later, mask=mask)[:, 5:], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("positions", "directed"), [("rotary", True), ("relative", True), ("none", False)]
)
def test_attention_tells_left_from_right_by_positions(positions: Any, directed: bool) -> None:
    torch.manual_seed(0)
    block, x = Attention(IN, DIM, 4, positions), torch.randn(1, 3, IN)
    mask = unpadded(3)
    found, expected = block(x.flip(1), mask=mask)[:, 1], block(x, mask=mask)[:, 1]
    assert torch.allclose(found, expected, atol=1e-3) != directed


@torch.no_grad()
def test_attention_without_positions_may_have_heads_of_an_odd_width() -> None:
    block = shaken(Attention(IN, 20, 4, "none").double())
    x, mask = sentences(dtype=torch.float64)
    assert_rows(
        block(x, mask=mask), mask, [attend(block, row, row, row) for row in each(x, mask)], 1e-10
    )


def restricted(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one sentence where each token sees only a slice of it."""
    rows = []
    for t in range(len(q)):
        first = 0 if block.window is None else max(0, t - block.window)
        last = len(q) - 1 if block.window is None else min(len(q) - 1, t + block.window)
        seen = slice(first, (t if block.causal else last) + 1)
        rows.append(attend(block, q[seen], k[seen], v[seen])[t - first])
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(
    ("causal", "window"), [(True, None), (False, 0), (False, 2), (True, 2), (False, 50)]
)
def test_causal_and_windowed_attention_see_a_slice_of_the_sentence(
    causal: bool, window: int | None, streams: int, positions: Any
) -> None:
    block = shaken(Attention(IN, DIM, 2, positions, causal=causal, window=window).double())
    x, mask = sentences(dtype=torch.float64)
    given = [x, x.flip(2), x.square()][:streams]
    expected = []
    for i, real in enumerate(mask):
        rows = [stream[i, real] for stream in given]
        expected.append(restricted(block, *rows, *rows[:1] * (3 - streams)))
    assert_rows(block(*given, mask=mask), mask, expected)


@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (False, 1), (True, 1)])
def test_padded_tokens_that_see_no_real_one_stay_finite(
    causal: bool, window: int | None, positions: Any
) -> None:
    block = shaken(Attention(IN, DIM, 2, positions, causal=causal, window=window))
    x, mask = sentences(longest=12)
    x.requires_grad_()
    y = block(x, mask=mask)
    assert y.isfinite().all()
    y[mask].sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert x.grad[mask].any() and not x.grad[~mask].any()


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_dropout_of_attention_weights_has_the_expectation_of_evaluation(positions: Any) -> None:
    block = shaken(Attention(IN, DIM, 2, positions, dropout=0.4))
    without = Attention(IN, DIM, 2, positions)
    without.load_state_dict(block.state_dict())
    x = torch.randn(1, 5, IN, generator=torch.Generator().manual_seed(0))
    expected = without(x, mask=unpadded(5))
    assert torch.equal(block.eval()(x, mask=unpadded(5)), expected)
    torch.manual_seed(1)
    count = 10_000
    found = block.train()(x.expand(count, 5, IN), mask=unpadded(5).expand(count, 5))
    assert found.std(0).amin() > 0.01
    deviations = (found.mean(0) - expected[0]) / (found.std(0) / count**0.5)
    assert deviations.abs().amax() < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": -1}, "window must not be negative; got -1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\); got -0.1"),
    ],
)
def test_windows_and_dropout_out_of_range_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(IN, DIM, **options)
