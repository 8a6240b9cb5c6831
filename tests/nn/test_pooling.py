"""Poolings against loops over the real tokens of each text."""

import pytest
import torch
from torch import Tensor

from residense.nn.pooling import (
    AttentionPooling,
    ClassToken,
    LastPooling,
    MaxPooling,
    MeanPooling,
    Pooling,
)

WIDTH, LENGTHS = 6, (5, 1, 3)
EVERY = [MeanPooling, MaxPooling, LastPooling, AttentionPooling, ClassToken]
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
def test_what_is_at_padding_does_not_matter(kind: type[Pooling]) -> None:
    torch.manual_seed(1)
    pooling = kind(WIDTH, WIDTH)
    clean, junk = (pooling(*pooling.begin(*batch(padding))) for padding in (0.0, float("nan")))
    assert torch.equal(clean, junk)
    h, mask = batch(float("nan"))
    h.requires_grad_()
    pooling(*pooling.begin(h, mask)).sum().backward()
    assert h.grad is not None and torch.isfinite(h.grad).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pooling.parameters())
