"""Sharded weights (FSDP2): each block gathers its own while it computes."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from residense.errors import UsageError
from residense.nn.blocks import Block


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the weights of a model over processes, one unit for each block.

    Args:
        model: The model.
        mesh: Its first dimension replicates weights between nodes, its second shards them.

    Raises:
        UsageError: A weight cannot be sharded.
    """
    inner_first = reversed(list(model.modules()))
    try:
        for module in inner_first:
            if isinstance(module, Block) or module is model:
                fully_shard(module, mesh=mesh)
    except ValueError as error:
        raise UsageError(f"trainer.strategy: {error}") from error
