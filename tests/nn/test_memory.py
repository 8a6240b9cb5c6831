"""Bytes that encoders keep between the forward and the backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from residense.nn.blocks import Conv
from residense.nn.branch import Branch
from residense.nn.connections import (
    Dense,
)
from residense.nn.encoder import Encoder

from .grid import BLOCKS, CONNECTIONS, cells, of_blocks
from .helpers import DIM, IN, gradients, random_batch


class Made(TorchDispatchMode):
    """Records the memory of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.sizes[StorageWeakRef(tensor.untyped_storage())] = (
                    tensor.untyped_storage().nbytes()
                )
        return made


def kept_bytes(
    run: Callable[[Tensor, Tensor], Any], parameters: list[nn.Parameter], half: bool = False
) -> int:
    """Bytes held between the forward and the backward pass, without parameters."""
    x, mask = torch.randn(8, 64, DIM), torch.ones(8, 64, dtype=torch.bool)
    given = {StorageWeakRef(tensor.untyped_storage()) for tensor in (x, mask, *parameters)}
    with torch.autocast("cpu", torch.bfloat16, enabled=half), Made() as made:
        held = run(x, mask)
    kept = sum(
        size for memory, size in made.sizes.items() if memory not in given and not memory.expired()
    )
    del held
    return kept


def encoder_bytes(encoder: Encoder, half: bool = False) -> int:
    return kept_bytes(encoder, list(encoder.parameters()), half)


def dense_bytes(depth: int, bottleneck: int, checkpointing: bool) -> int:
    connection = partial(Dense, growth_rate=8, bottleneck=bottleneck)
    branch = partial(Branch, dropout=0.0)
    encoder = Encoder(
        DIM,
        Conv,
        connection,
        depth,
        DIM,
        branch,
        final_norm=False,
        activation_checkpointing=checkpointing,
    )
    return encoder_bytes(encoder)


def concatenating_bytes(depth: int, growth_rate: int = 8) -> int:
    """Bytes kept by a DenseNet-BC that is written as in the paper."""
    narrow, widths = 2 * growth_rate, [DIM + i * growth_rate for i in range(depth)]
    norms, squeeze = (
        [nn.LayerNorm(width) for width in widths],
        [nn.Linear(width, narrow) for width in widths],
    )
    branches = [Branch(Conv(narrow, growth_rate), dropout=0.0) for _ in widths]

    def run(x: Tensor, mask: Tensor) -> Tensor:
        features = [x]
        for norm, linear, branch in zip(norms, squeeze, branches, strict=True):
            features.append(branch(linear(norm(torch.cat(features, -1)).relu()), mask=mask))
        return torch.cat(features, -1)

    return kept_bytes(
        run, [p for module in (*norms, *squeeze, *branches) for p in module.parameters()]
    )


@pytest.mark.parametrize(
    ("bottleneck", "checkpointing", "growth"),
    [(2, False, 2.3), (2, True, 2.3), (0, True, 2.0)],
    ids=str,
)
def test_memory_of_dense_blocks_grows_linearly_with_the_depth(
    bottleneck: int, checkpointing: bool, growth: float
) -> None:
    few, many = (dense_bytes(depth, bottleneck, checkpointing) for depth in (12, 24))
    assert 1.5 * few < many < growth * few


def test_dense_blocks_need_less_memory_than_concatenations() -> None:
    few, many = (concatenating_bytes(depth) for depth in (12, 24))
    assert many > 3 * few
    assert dense_bytes(24, 2, checkpointing=False) < many / 3
    assert dense_bytes(24, 2, checkpointing=True) < many / 5
    assert dense_bytes(24, 2, checkpointing=True) < 0.6 * dense_bytes(24, 2, checkpointing=False)


@pytest.mark.parametrize(
    "connection", ["residual", "dense", "dual path", "attention residuals", "multiway"]
)
def test_half_precision_needs_less_memory_that_grows_linearly_too(connection: str) -> None:
    branch = partial(Branch, dropout=0.0)
    make_deep = partial(Encoder, DIM, Conv, dim=DIM, branch=branch, final_norm=False)
    make_deep = partial(make_deep, **CONNECTIONS[connection])
    few, many = (make_deep(depth=depth) for depth in (12, 24))
    bytes_of_few, bytes_of_many, in_single = (
        encoder_bytes(few, True),
        encoder_bytes(many, True),
        encoder_bytes(many),
    )
    assert bytes_of_many < 2.3 * bytes_of_few
    assert bytes_of_many < in_single


def fast(block: str, connection: str) -> bool:
    return connection in ("plain", "residual", "dense", "multiway", "hyper", "strided projected")


@cells(fast, of_blocks("transformer", "resnet"))
def test_checkpointing_needs_less_memory(block: str, connection: str) -> None:
    options = {"branch": partial(Branch, dropout=0.0)} | CONNECTIONS[connection]
    make_deep = partial(Encoder, DIM, BLOCKS[block], depth=4, dim=DIM, **options)
    whole, less = (
        encoder_bytes(make_deep(activation_checkpointing=flag)) for flag in (False, True)
    )
    assert less < 0.7 * whole


@pytest.mark.parametrize("bottleneck", [0, 2])
def test_checkpointing_does_not_change_gradients_of_deep_dense_blocks(
    bottleneck: int,
) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        connection = partial(Dense, growth_rate=8, bottleneck=bottleneck)
        encoder = Encoder(
            IN,
            Conv,
            connection,
            24,
            DIM,
            partial(Branch, dropout=0.2),
            activation_checkpointing=checkpointing,
        )
        torch.manual_seed(7)
        found.append(gradients(encoder, encoder, *random_batch(4, 8)))
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-7, atol=1e-7)
