"""Encoders under automatic mixed precision."""

import torch

from .grid import cells, make
from .helpers import gradients, random_batch


def fast(block: str, connection: str) -> bool:
    return block in ("conv", "transformer") or connection in ("residual", "dense")


@cells(fast)
def test_half_precision_stays_close_to_single(block: str, connection: str) -> None:
    encoder = make(block, connection, 3)
    x, mask = random_batch(8, 9)
    expected, dx, *parameters = gradients(encoder, encoder, x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found, near_dx, *near = gradients(encoder, encoder, x, mask)
    assert all(values.isfinite().all() for values in (found, near_dx, *near))
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert (near_dx - dx).norm() < 0.3 * dx.norm()
    whole = torch.cat([grad.flatten() for grad in parameters])
    near_whole = torch.cat([grad.flatten() for grad in near])
    assert (near_whole - whole).norm() < 0.3 * whole.norm()
