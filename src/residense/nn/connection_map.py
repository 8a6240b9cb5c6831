"""The connection map: who reads whom, and how much of it. One definition for all connections.

`M[i, s]` says how much of source s is in what block i reads: source 0 is the embedding, source s what block s - 1
wrote. The last row is what leaves the stage. The blocks run once over real tokens; then the connection alone is run
again on what they wrote:

- a connection that adds and weighs: the mean, over tokens and channels, of the coefficient of the source, that is of
  the diagonal of d read / d source, with coefficients that were computed from the data held fixed;
- one that concatenates: the share of the source in the energy of what is read, where the energy of a source is that of
  what changes when it is silenced.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from residense.nn.connections import Connection
from residense.nn.encoder import Encoder


def connection_maps(encoder: Encoder, x: Tensor, mask: Tensor) -> list[Tensor]:
    """The map of each stage [depth + 1, depth + 1], from embedded tokens `x` [B, L, in_dim]."""
    modes = {module: module.training for module in encoder.modules()}
    stages: list[Any] = list(encoder.stages)
    seen: list[list[Any]] = [
        [] for _ in stages
    ]  # of each stage its input, its mask, and what each block wrote
    hooks = []
    for found, stage in zip(seen, stages, strict=True):
        hooks.append(stage.register_forward_pre_hook(partial(_note_input, found)))
        hooks += [
            branch.register_forward_hook(partial(_note_output, found)) for branch in stage.branches
        ]
    try:
        with torch.no_grad():
            encoder.eval()(x, mask)
        return [
            connection_map(stage.connection, [x, *written], mask)
            for stage, (x, mask, *written) in zip(stages, seen, strict=True)
        ]
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()


def _note_input(found: list[Any], _: Any, inputs: tuple[Any, ...]) -> None:
    found.extend(inputs)


def _note_output(found: list[Any], _: Any, __: Any, output: Tensor) -> None:
    found.append(output)


def connection_map(connection: Connection, sources: list[Tensor], mask: Tensor) -> Tensor:
    """The map of one connection [depth + 1, depth + 1], from the stage's input and what each block wrote."""
    with _coefficients_held(connection):
        rows = (
            _energies(connection, sources, mask)
            if connection.concatenates
            else _means(connection, sources, mask)
        )
    return rows.cpu()


@contextmanager
def _coefficients_held(connection: Connection) -> Iterator[None]:
    connection.held = True
    try:
        yield
    finally:
        connection.held = False


def _replay(
    connection: Connection, sources: list[Tensor], mask: Tensor
) -> list[tuple[Tensor, ...]]:
    """What each block reads, and what leaves the stage, if the blocks wrote these sources."""
    reads, state = [], connection.begin(sources[0], mask)
    for i, y in enumerate(sources[1:]):
        streams, state = connection.read(state, i)
        reads.append(streams)
        state = connection.write(state, y, i)
    return [*reads, (connection.end(state),)]


def _means(connection: Connection, sources: list[Tensor], mask: Tensor) -> Tensor:
    """Mean diagonals of the Jacobians, by random signs: exact where a source is multiplied channel by channel."""
    sources = [source.detach().requires_grad_() for source in sources]
    entries: list[Tensor] = []  # the embedding behind the projection, where a stream begins

    def enter(_: Any, __: Any, projected: Tensor) -> Tensor:
        entries.append(projected.detach().requires_grad_())
        return entries[-1]

    hook = connection.project.register_forward_hook(enter)
    try:
        with torch.enable_grad():
            reads = _replay(connection, sources, mask)
    finally:
        hook.remove()
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(len(sources), len(sources))
    for i, streams in enumerate(reads):
        for read in streams:
            signs = torch.zeros_like(
                read
            )  # at padding; the others do not depend on how much of it there is
            drawn = torch.randint(2, read[mask].shape, generator=generator)
            signs[mask] = 2 * drawn.to(read) - 1
            leaves = [(0, entry) for entry in entries] + list(enumerate(sources))
            wanted = [(s, leaf) for s, leaf in leaves if leaf.shape == read.shape]
            grads: list[Any] = [None] * len(wanted)
            if read.requires_grad:
                grads = list(
                    torch.autograd.grad(
                        read, [x for _, x in wanted], signs, True, allow_unused=True
                    )
                )
            for (s, _), grad in zip(wanted, grads, strict=True):
                if grad is not None:
                    rows[i, s] += (
                        (grad * signs).sum().cpu() / signs.abs().sum().cpu() / len(streams)
                    )
    return rows


@torch.no_grad()
def _energies(connection: Connection, sources: list[Tensor], mask: Tensor) -> Tensor:
    """Shares of what changes in each read when one source is silent."""
    whole = [streams[0] for streams in _replay(connection, sources, mask)]
    columns = []
    for s, source in enumerate(sources):
        without = _replay(
            connection, [*sources[:s], torch.zeros_like(source), *sources[s + 1 :]], mask
        )
        changes = [
            (a - b[0])[mask].double().square().sum() for a, b in zip(whole, without, strict=True)
        ]
        columns.append(torch.stack(changes))
    energy = torch.stack(columns, 1)
    return (
        energy / energy.sum(1, keepdim=True).clamp(min=1e-30)
    ).float()  # a read of nothing has shares of 0
