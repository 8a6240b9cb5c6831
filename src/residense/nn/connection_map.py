"""The connection map: how much each source contributes to the input of each block.

The encoder runs once and the outputs of its blocks are recorded. The connection then runs alone on
the recorded outputs, with one of them set to zero at a time. M[i, s] is the energy of the change in
the input of block i when source s is removed, normalized over the sources. Source 0 is the input of
the stage and source s the output of block s - 1; the last row is the output of the stage. This
works for any connection.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from residense.nn.connections import Connection
from residense.nn.encoder import Encoder, Stage


@torch.no_grad()
def connection_maps(encoder: Encoder, x: Tensor, mask: Tensor) -> list[Tensor]:
    """Compute the connection map of each stage.

    Args:
        encoder: Encoder; it runs in evaluation mode.
        x: Embeddings [B, L, in_dim].
        mask: Mask [B, L].

    Returns:
        One matrix [depth + 1, depth + 1] for each stage; each row sums to 1, or to 0 if no source
        contributes.
    """
    stages: list[Any] = list(encoder.stages)
    inputs: list[tuple[Tensor, Tensor]] = []
    outputs: list[list[Tensor]] = [[] for _ in stages]
    hooks = [stage.register_forward_pre_hook(partial(_record_input, inputs)) for stage in stages]
    for stage, found in zip(stages, outputs, strict=True):
        hooks += [b.register_forward_hook(partial(_record_output, found)) for b in stage.branches]
    modes = {module: module.training for module in encoder.modules()}
    try:
        encoder.eval()(x, mask)
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return [
        _map(stage, stage.project(x), found, mask)
        for stage, (x, mask), found in zip(stages, inputs, outputs, strict=True)
    ]


def _record_input(inputs: list[Any], _: Any, args: tuple[Tensor, Tensor]) -> None:
    inputs.append(args)


def _record_output(outputs: list[Tensor], _: Any, args: Any, output: Tensor) -> None:
    outputs.append(output)


def _map(stage: Stage, x: Tensor, outputs: list[Tensor], mask: Tensor) -> Tensor:
    sources = [x, *outputs]
    masks = (mask, mask[:, :: stage.stride])
    whole = replay(stage.connection, sources, *masks)
    columns = []
    for s, source in enumerate(sources):
        silenced = [*sources[:s], torch.zeros_like(source), *sources[s + 1 :]]
        without = replay(stage.connection, silenced, *masks)
        pairs = zip(whole, without, strict=True)
        columns.append(torch.stack([_energy(before, after, masks) for before, after in pairs]))
    energy = torch.stack(columns, 1)
    return (energy / energy.sum(1, keepdim=True).clamp(min=1e-30)).float().cpu()


def replay(
    connection: Connection, sources: list[Tensor], mask: Tensor, out_mask: Tensor
) -> list[tuple[Tensor, ...]]:
    """Run a connection on given block outputs.

    Args:
        connection: Connection to run.
        sources: Input of the stage [B, L, in_dim] and output of each block [B, L, width].
        mask: Mask of the input.
        out_mask: Mask of the outputs.

    Returns:
        The inputs of each block, and the output of the stage.
    """
    reads = []
    state = connection.begin(sources[0], mask)
    for i, y in enumerate(sources[1:]):
        streams, state = connection.read(state, i, out_mask if i else mask)
        reads.append(streams)
        state = connection.write(state, y, i, out_mask)
    return [*reads, (connection.end(state),)]


def _energy(
    before: tuple[Tensor, ...], after: tuple[Tensor, ...], masks: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the squared norm of the difference of two reads over real tokens, in float64."""
    difference = torch.stack(before).double() - torch.stack(after).double()
    mask = masks[difference.shape[2] != masks[0].shape[1]]
    return difference[:, mask].square().sum()
