"""Poolings against loops over the real tokens of each text."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from residense.nn.pooling import (
    AttentionPooling,
    ClassToken,
    KMaxPooling,
    LastPooling,
    MaxPooling,
    MeanPooling,
    Pooling,
    PoolingFactory,
)

WIDTH, LENGTHS = 6, (5, 1, 3)
EVERY = [
    MeanPooling,
    MaxPooling,
    partial(KMaxPooling, k=2),
    partial(KMaxPooling, k=9),
    LastPooling,
    AttentionPooling,
    ClassToken,
]
SIMPLE = {
    MeanPooling: lambda h: h.mean(0),
    MaxPooling: lambda h: h.max(0).values,
    LastPooling: lambda h: torch.cat([h[-1, : WIDTH // 2], h[0, WIDTH // 2 :]]),
}


def batch(padding: float = 0.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(len(LENGTHS), max(LENGTHS), WIDTH).masked_fill(
        ~mask[..., None], padding
    ), mask


@pytest.mark.parametrize("kind", SIMPLE)
def test_simple_poolings(kind: type[Pooling]) -> None:
    h, mask = batch()
    expected = torch.stack(
        [SIMPLE[kind](row[:length]) for row, length in zip(h, LENGTHS, strict=True)]
    )
    torch.testing.assert_close(kind(WIDTH, WIDTH)(h, mask), expected)


def test_attention_weighs_by_softmax() -> None:
    h, mask = batch()
    pooling = AttentionPooling(WIDTH, WIDTH, hidden=4)
    rows = [row[:length] for row, length in zip(h, LENGTHS, strict=True)]
    expected = torch.stack([(pooling.score(row).softmax(0) * row).sum(0) for row in rows])
    torch.testing.assert_close(pooling(h, mask), expected)


def test_a_class_token_is_read_first_and_is_what_remains() -> None:
    h, mask = batch()
    pooling = ClassToken(WIDTH, WIDTH)
    x, longer = pooling.begin(h, mask)
    assert x.shape == (3, 6, WIDTH) and longer.sum(1).tolist() == [length + 1 for length in LENGTHS]
    assert torch.equal(x[:, 1:], h) and torch.equal(pooling(x, longer), pooling.token.expand(3, -1))


@pytest.mark.parametrize("kind", EVERY)
def test_what_is_at_padding_does_not_matter(kind: PoolingFactory) -> None:
    torch.manual_seed(1)
    pooling = kind(WIDTH, WIDTH)
    clean, junk = (pooling(*pooling.begin(*batch(padding))) for padding in (0.0, float("nan")))
    assert torch.equal(clean, junk)
    h, mask = batch(float("nan"))
    h.requires_grad_()
    pooling(*pooling.begin(h, mask)).sum().backward()
    assert h.grad is not None and torch.isfinite(h.grad).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pooling.parameters())


def k_largest(values: list[float], k: int) -> list[float]:
    """The k largest values in their order; of equal ones, the first."""
    best = sorted(range(len(values)), key=lambda place: -values[place])[:k]
    return [values[place] for place in sorted(best)] + [0.0] * (k - len(best))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_the_k_largest_values_keep_the_order_of_the_text(k: int) -> None:
    h, mask = batch(1e9)
    pooling = KMaxPooling(WIDTH, WIDTH, k)
    found = pooling(h, mask)
    assert pooling.out_dim == k * WIDTH
    assert found.shape == (len(h), k * WIDTH)
    for row, length, vector in zip(h, LENGTHS, found, strict=True):
        columns = [k_largest(row[:length, d].tolist(), k) for d in range(WIDTH)]
        assert vector.view(k, WIDTH).T.tolist() == columns


def test_one_largest_value_is_max_pooling() -> None:
    h, mask = batch()
    expected = MaxPooling(WIDTH, WIDTH)(h, mask)
    assert torch.equal(KMaxPooling(WIDTH, WIDTH, 1)(h, mask), expected)


@pytest.mark.parametrize("kind", EVERY)
def test_padding_does_not_change_a_pooled_text(kind: PoolingFactory) -> None:
    torch.manual_seed(1)
    pooling = kind(WIDTH, WIDTH)
    h, mask = batch()
    longer = nn.functional.pad(h, (0, 0, 0, 4), value=5.0), nn.functional.pad(mask, (0, 4))
    found = pooling(*pooling.begin(h, mask))
    assert found.shape == (len(h), pooling.out_dim)
    torch.testing.assert_close(pooling(*pooling.begin(*longer)), found)
    for row, length, expected in zip(h, LENGTHS, found, strict=True):
        alone = pooling(*pooling.begin(row[None, :length], mask[:1, :length]))
        torch.testing.assert_close(alone[0], expected)


def test_fewer_than_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        KMaxPooling(WIDTH, WIDTH, 0)
