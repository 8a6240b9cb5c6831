"""Helpers of the tests of blocks and encoders: sentences, and comparisons without padding."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

IN, DIM, LENGTHS = 12, 16, (7, 1, 4, 7, 3)


def sentences(
    width: int = IN,
    dtype: torch.dtype = torch.float32,
    lengths: tuple[int, ...] = LENGTHS,
    longest: int = 0,
) -> tuple[Tensor, Tensor]:
    """Random sentences with large junk at padded positions, and their mask."""
    source = torch.Generator().manual_seed(1)
    rows = [torch.randn(length, width, generator=source, dtype=dtype) for length in lengths]
    mask = torch.arange(max(longest, *lengths)) < torch.tensor(lengths)[:, None]
    x = 100 * torch.randn(*mask.shape, width, generator=source, dtype=dtype)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    return x, mask


def each(x: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """The sentences, without padding."""
    for row, real in zip(x, mask, strict=True):
        yield row[real]


def unpadded(length: int) -> Tensor:
    """The mask of one sentence without padding."""
    return torch.ones(1, length, dtype=torch.bool)


def assert_rows(
    found: Tensor, mask: Tensor, expected: list[Tensor], tolerance: float = 1e-5
) -> None:
    for row, right in zip(each(found, mask), expected, strict=True):
        torch.testing.assert_close(row, right, rtol=tolerance, atol=tolerance)


def shaken(module: Any) -> Any:
    """The module with noise on all parameters, so that none of them is a 0 or a 1 by chance."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def noise_like(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)


def stages_of(encoder: Any) -> list[Any]:
    """The stages of an encoder, without a type, as the elements of a module list have none."""
    return list(encoder.stages)


def blocks_of(encoder: Any) -> list[Any]:
    return [branch.block for stage in encoder.stages for branch in stage.branches]


def random_batch(size: int, length: int, width: int = IN) -> tuple[Tensor, Tensor]:
    """Random sentences, the first of one token and the last of full length, and their mask."""
    source = torch.Generator().manual_seed(100 * size + length)
    lengths = torch.randint(1, length + 1, (size,), generator=source)
    lengths[0], lengths[-1] = 1, length
    return torch.randn(size, length, width, generator=source), torch.arange(length) < lengths[
        :, None
    ]


def gradients(
    encoder: nn.Module, run: Callable[..., tuple[Tensor, Tensor]], x: Tensor, mask: Tensor
) -> list[Tensor]:
    """Return the output at real tokens, and all gradients of a random projection of it."""
    encoder.zero_grad()
    x = x.clone().requires_grad_()
    y, left = run(x, mask)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    (y.float() * noise)[left].sum().backward()
    grads = [p.grad for p in encoder.parameters()]
    assert x.grad is not None
    assert all(grad is not None for grad in grads)
    return [y[left].detach(), x.grad, *(grad.clone() for grad in grads if grad is not None)]
