"""Learning rate schedules by optimizer step, created as `schedule(optimizer, total_steps)`."""

import math
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from residense.nn.heads import TaggingHead
from residense.settings.bounds import Share


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Divide parameters into those with weight decay, which are matrices, and the others.

    Embedding tables, and the transition scores of a head, are not decayed.
    """
    tables = [
        module for module in model.modules() if isinstance(module, nn.Embedding | TaggingHead)
    ]
    entries = {id(parameter) for table in tables for parameter in table.parameters(recurse=False)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_matrix = parameter.ndim >= 2 and id(parameter) not in entries
        (decayed if is_matrix else others).append(parameter)
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


class Warmup(LambdaLR):
    """Linear warmup, followed by constant, linear or cosine decay.

    Args:
        optimizer: Optimizer whose learning rate is scheduled.
        total_steps: Number of optimizer steps of the run.
        warmup: Fraction of the steps in which the learning rate rises from zero.
        decay: Decay after the warmup: `constant` (no decay), `linear` or `cosine`.
        floor: Fraction of the learning rate at the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: Share = 0.1,
        decay: Literal["constant", "linear", "cosine"] = "cosine",
        floor: Share = 0.0,
    ):
        rising = max(1, round(warmup * total_steps))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            done = min(1.0, (step - rising) / max(1, total_steps - rising))
            falling = {
                "constant": 1.0,
                "linear": 1 - done,
                "cosine": (1 + math.cos(math.pi * done)) / 2,
            }[decay]
            return floor + (1 - floor) * falling

        super().__init__(optimizer, factor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the schedule; if the run was extended, use its learning rate at this step."""
        super().load_state_dict(state_dict)
        for group, rate, factor in zip(
            self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True
        ):
            group["lr"] = rate * factor(self.last_epoch)
