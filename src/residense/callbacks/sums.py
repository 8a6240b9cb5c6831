"""What an epoch has summed up so far, which Lightning leaves out of checkpoints.

The states of the task's metrics, and the sums behind `self.log(..., on_epoch=True)` in a training step.
"""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric


class Sums:
    """The sums of one process, as plain numbers and tensors, and how they are put back.

    Metrics are put back when training begins. A logged value exists from its first `self.log` on, so its old sum joins
    the new one after the first batch; before a validation, the sums that are still left are logged.
    """

    def __init__(self, metrics: dict[str, Any] | None = None, logged: dict[str, Any] | None = None):
        self.metrics, self.logged = metrics or {}, logged or {}

    @classmethod
    def of(cls, trainer: L.Trainer) -> "Sums":
        """Those of the epoch that is under way."""
        modules = trainer.lightning_module.named_modules()
        metrics = {name: module for name, module in modules if isinstance(module, Metric)}
        logged = {
            key: r for key, r in _results(trainer).items() if r.meta.on_epoch and not r.has_reset
        }
        return cls(
            {
                name: (metric.update_count, _copy(metric.metric_state))
                for name, metric in metrics.items()
            },
            {key: _entry(result) for key, result in logged.items()},
        )

    def state(self) -> dict[str, Any]:
        """What to save."""
        return {"metrics": self.metrics, "logged": self.logged}

    def restore_metrics(self, module: L.LightningModule) -> None:
        """Put the states of the metrics back."""
        metrics: dict[str, Any] = dict(module.named_modules())
        for name, (count, state) in self.metrics.items():
            metrics[name]._update_count = count
            for key, value in state.items():
                setattr(metrics[name], key, _copy(value, module.device))
        self.metrics = {}

    def join(self, trainer: L.Trainer) -> None:
        """Add the old sums to those that have begun anew."""
        results = _results(trainer)
        for key in [key for key in self.logged if key in results]:
            _add(results[key], self.logged.pop(key)["state"])

    def log(self, trainer: L.Trainer) -> None:
        """Have the remaining sums logged at the end of the epoch, though no batch of it is left."""
        results = _results(trainer)
        for key, entry in self.logged.items():
            module = trainer.lightning_module
            attribute = entry["options"]["metric_attribute"]
            value: Any = (
                module.get_submodule(attribute)
                if attribute
                else torch.zeros((), device=module.device)
            )
            results.log(
                value=value,
                reduce_fx=getattr(torch, entry["reduce"]),
                sync_dist=entry["sync"],
                sync_dist_fn=trainer.strategy.reduce,
                batch_size=0,
                **entry["options"],
            )
            for name, state in entry["state"].items():
                setattr(results[key], name, state.to(module.device))
        self.logged = {}


def _results(trainer: L.Trainer) -> Any:
    """Where Lightning keeps what training logs, by function and name."""
    return trainer.fit_loop.epoch_loop._results


def _copy(state: Any, device: Any = "cpu") -> Any:
    """A copy of tensors, lists and dictionaries of them."""
    if isinstance(state, Tensor):
        return state.detach().to(device, copy=True)
    if isinstance(state, dict):
        return {key: _copy(value, device) for key, value in state.items()}
    return [_copy(value, device) for value in state] if isinstance(state, list) else state


def _entry(result: Any) -> dict[str, Any]:
    meta = result.meta
    names = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "metric_attribute")
    return {
        "options": {name: getattr(meta, name) for name in names},
        "reduce": meta.reduce_fx.__name__,
        "sync": meta.sync.should,
        "state": _copy(result.metric_state) if result.is_tensor else {},
    }


def _add(result: Any, state: dict[str, Tensor]) -> None:
    joined = result.meta.reduce_fx if result.meta.reduce_fx in (torch.max, torch.min) else torch.add
    for name, value in state.items():
        setattr(result, name, joined(value.to(result.device), getattr(result, name)))
