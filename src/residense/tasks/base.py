"""What all tasks share: optimiser groups, a schedule by step, and a vocabulary that travels in the checkpoint."""

from collections.abc import Callable
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from residense.data.batches import Batch
from residense.data.module import TextDataModule
from residense.data.vocabulary import Vocabulary
from residense.errors import TrainingError, UsageError
from residense.messages import say
from residense.nn.blocks import Block
from residense.nn.heads import TaggingHead
from residense.optim import Warmup
from residense.run.checkpoints import Checkpoint


class Task(L.LightningModule):
    """Base of all tasks.

    Layers whose size depends on the data are made in `build`, once the vocabulary is known: from the data module in
    training, from the checkpoint ever after. The vocabulary of a checkpoint wins over that of any data.

    Args:
        optimizer: called with the parameter groups.
        schedule: called with the optimizer and the number of optimiser steps of the whole run.
    """

    scores: ClassVar[dict[str, str]] = {
        "val/loss": "min"
    }  # what can be monitored, and which way is better
    said: ClassVar[dict[str, str]] = {}  # scores below the table of a test, and their names

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Callable[[Optimizer, int], LRScheduler] = Warmup,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.vocabulary: Vocabulary | None = None
        self.initial_weights: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as the moving average, has no factories: these hold the command line and all that it started."""
        return {k: v for k, v in super().__getstate__().items() if not k.startswith("make_")}

    def build(self, vocabulary: Vocabulary) -> None:
        """Make the layers for a vocabulary."""
        raise NotImplementedError  # pragma: no cover

    def configure_model(self) -> None:
        """Make the layers for the vocabulary of the data module, unless a checkpoint has made them; then shard them.

        Only a ModelParallelStrategy has a device mesh. Both of its dimensions hold data: between nodes weights are
        repeated, within a node they are split.
        """
        if self.vocabulary is None and self._trainer is not None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.adopt(data.vocabulary)
            self.start_from(data)
            self._warm_start()
        if self._trainer is not None:  # before weights are loaded, which would be rounded else
            self.trainer.precision_plugin.convert_module(self)
        if self.device_mesh is not None and not isinstance(self, FSDPModule):
            self._shard(self.device_mesh)

    def _shard(self, mesh: DeviceMesh) -> None:
        """Split all weights over the processes; each block gathers its own for as long as it computes."""
        try:
            for module in reversed(
                list(self.modules())
            ):  # what is inside a block comes before it, the task last
                if isinstance(module, Block | Task):
                    fully_shard(module, mesh=mesh)
        except ValueError as error:
            raise UsageError(f"trainer.strategy: {error}") from error

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take a vocabulary and make the layers for it."""
        try:
            self.build(vocabulary)
        except ValueError as error:
            raise UsageError(f"model: {error}") from error
        self.vocabulary = vocabulary

    def encode(self, batch: Batch) -> Tensor:
        """Encode each text of a batch as a vector [B, D]."""
        raise NotImplementedError  # pragma: no cover

    def start_from(self, data: TextDataModule) -> None:
        """Initialise fresh layers from what the data module brings along, such as word vectors."""

    def compare(self, predicted: list[Any], data: TextDataModule) -> dict[str, dict[str, float]]:
        """Scores of a test that its own are held against, by name."""
        return {}

    def _warm_start(self) -> None:
        """Take over the initial weights that fit; those of another shape or name start from scratch."""
        own = self.state_dict()
        fitting = {
            k: v for k, v in self.initial_weights.items() if k in own and v.shape == own[k].shape
        }
        if self.initial_weights and not fitting:
            raise UsageError(
                "--init_from: no weight of the checkpoint fits this model; give it the same encoder"
            )
        if fitting:
            self.load_state_dict(fitting, strict=False)
            new = ", ".join(sorted(set(own) - set(fitting))) or "none"
            say(f"{len(fitting)} of {len(own)} weights loaded; these start from scratch: {new}")
        self.initial_weights = {}

    def over_processes(self, loss: Tensor) -> Tensor:
        """The loss of the global batch, on the steps that are logged: elsewhere nothing needs to be sent."""
        done, every = self.trainer.global_step + 1, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.trainer.world_size == 1 or not every or done % every:
            return loss.detach()
        return self.trainer.strategy.reduce(loss.detach(), reduce_op="mean")  # type: ignore[return-value]

    def on_validation_start(self) -> None:
        """Validate with the running statistics of the first process, as DDP does: a checkpoint holds these."""
        if isinstance(self, FSDPModule):
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_train_epoch_end(self) -> None:
        """See that the loss is finite, and tell the data module, before any checkpoint of this epoch is written."""
        self._refuse_divergence(bool(self._last_loss().isfinite()))
        self.trainer.datamodule.end_epoch()  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the vocabulary into the checkpoint; see that its weights and the state of the optimizer are finite."""
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        stored = Checkpoint(checkpoint)
        self._refuse_divergence(stored.is_finite(trainable))
        if self.vocabulary is not None:
            stored.add_model(self.vocabulary, sharded=isinstance(self, FSDPModule))

    def _last_loss(self) -> Tensor:
        """The training loss of the last step."""
        return self.trainer.callback_metrics.get("train/loss", torch.zeros(()))  # type: ignore[attr-defined]

    def _refuse_divergence(self, finite: bool) -> None:
        """End the run on all processes if one has something that is not finite, which must not replace a checkpoint."""
        if not self.trainer.strategy.reduce_boolean_decision(finite):
            step, loss = self.trainer.global_step, float(self._last_loss())  # type: ignore[attr-defined]
            raise TrainingError(
                f"training diverged: at step {step} train/loss is {loss:.4g}, and weights that are not finite are not "
                "saved; start a new run with a lower --model.optimizer.lr, or resume this one with --ckpt_path last "
                "and a lower --trainer.gradient_clip_val"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the vocabulary out of the checkpoint, and see that its weights fit."""
        stored = Checkpoint(checkpoint)
        if self.vocabulary is None:
            self.adopt(stored.vocabulary)
        elif self.vocabulary != stored.vocabulary:
            raise UsageError(
                "the vocabulary of the data differs from that of the checkpoint: resume with the corpus that the run "
                "began with, or warm-start a new run with --init_from"
            )
        if name := stored.misfit(self.state_dict()):
            raise UsageError(
                f"the checkpoint does not fit this model, as {name} shows: leave out the options that change "
                "its layers, or warm-start a new run with --init_from"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Weight decay for matrices only; the schedule moves at each optimiser step.

        Embeddings, and a head's own scores of transitions, are tables.
        """
        tables = [
            module for module in self.modules() if isinstance(module, nn.Embedding | TaggingHead)
        ]
        entries = {
            id(parameter) for table in tables for parameter in table.parameters(recurse=False)
        }
        groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in self.parameters():
            groups[parameter.ndim < 2 or id(parameter) in entries].append(parameter)
        try:
            optimizer = self.make_optimizer(
                [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}]
            )
        except ValueError as error:
            raise UsageError(f"model.optimizer: {error}") from error
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UsageError(
                "a schedule needs an end: set --trainer.max_epochs or --trainer.max_steps"
            )
        schedule = self.make_schedule(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip; Lightning refuses that for fused optimizers in mixed precision even where no gradient is scaled."""
        plugin, algorithm = (
            self.trainer.precision_plugin,
            GradClipAlgorithmType(gradient_clip_algorithm or "norm"),
        )
        if getattr(plugin, "scaler", None) is None:
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            plugin.clip_gradients(optimizer, gradient_clip_val or 0.0, algorithm)
