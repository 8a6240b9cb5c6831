"""What all tasks share: steps, checkpoints, sharding and optimization."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from residense.data.batches import Batch
from residense.data.module import TextDataModule
from residense.data.vocabulary import Vocabulary
from residense.errors import TrainingError, UsageError
from residense.nn.embeddings import Embeddings
from residense.nn.encoder import Encoder
from residense.optim import Warmup, parameter_groups
from residense.run.checkpoints import Checkpoint
from residense.run.sharding import shard

Stage = Literal["val", "test"]


class Task(L.LightningModule):
    """Base of all tasks: a model, its loss and its metrics.

    A subclass makes its layers in the constructor, and defines `forward`, `loss`, `decode`, `update`,
    `compute`, `unbatch`, `records` and `encode`.

    Args:
        vocabulary: Vocabulary of the training data, which checkpoints contain.
        embeddings: Tokens to vectors.
        encoder: Blocks wired by connections.
        optimizer: Called with the parameter groups.
        schedule: Called with the optimizer and the number of optimizer steps of the run.

    Attributes:
        results: Scores and tables of each stage, `val` and `test`, after it has ended.
    """

    scores: ClassVar[dict[str, Literal["min", "max"]]] = {"val/loss": "min"}
    """Scores that can be monitored, and which way is better; the second one is the main score."""

    summary: ClassVar[dict[str, str]] = {}
    """Scores that are printed below the table of a test, and their names."""

    loss_weight: ClassVar[Literal["divisor", "sentence_divisor"]] = "divisor"
    """Entry of a batch that its loss is divided by."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        embeddings: Callable[..., Embeddings] = Embeddings,
        encoder: Callable[[int], Encoder] = Encoder,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Callable[[Optimizer, int], LRScheduler] = Warmup,
    ):
        super().__init__()
        self.vocabulary = vocabulary
        self.embeddings = embeddings(vocabulary.table_sizes)
        self.encoder = encoder(int(self.embeddings.out_dim))
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.results: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the factories out of copies, such as the moving average."""
        return {k: v for k, v in super().__getstate__().items() if not k.startswith("make_")}

    # -- what a task defines ----------------------------------------------------------------------

    def forward(self, batch: Batch) -> Any:
        """Return what `loss` and `decode` need of a batch."""
        raise NotImplementedError  # pragma: no cover

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the loss, divided so that the gradients of a step add up to that of its mean."""
        raise NotImplementedError  # pragma: no cover

    def decode(self, output: Any) -> Any:
        """Return the predictions for a batch as tensors."""
        raise NotImplementedError  # pragma: no cover

    def update(self, stage: Stage, decoded: Any, batch: Batch) -> None:
        """Add a batch to the metrics of a stage."""
        raise NotImplementedError  # pragma: no cover

    def compute(self, stage: Stage) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the scores and the tables of a stage, and reset its metrics."""
        raise NotImplementedError  # pragma: no cover

    def unbatch(self, decoded: Any, batch: Batch) -> list[Any]:
        """Return the predictions for each sentence of a batch, padding left out."""
        raise NotImplementedError  # pragma: no cover

    def records(
        self, predicted: list[Any], data: TextDataModule, stage: str
    ) -> Iterable[dict[str, Any]]:
        """Return the predictions for each text as JSON; in a test, with the gold labels."""
        raise NotImplementedError  # pragma: no cover

    def compare(self, predicted: list[Any], data: TextDataModule) -> dict[str, dict[str, float]]:
        """Return scores to compare those of a test with, by name."""
        return {}

    def encode(self, batch: Batch) -> Tensor:
        """Encode each text of a batch as a vector [B, D]."""
        raise NotImplementedError  # pragma: no cover

    # -- steps ------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch), batch)
        self.log("train/loss", self._reduced(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        output = self(batch)
        size = int(batch[self.loss_weight])
        loss = self.loss(output, batch)
        self.log("val/loss", loss, batch_size=size, on_epoch=True, sync_dist=True)
        self.update("val", self.decode(output), batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        decoded = self.decode(self(batch))
        self.update("test", decoded, batch)
        return self.unbatch(decoded, batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Any]:
        return self.unbatch(self.decode(self(batch)), batch)

    def on_validation_epoch_end(self) -> None:
        _, main, *others = (name.removeprefix("val/") for name in self.scores)
        values, tables = self.compute("val")
        self.results["val"] = values | tables
        self.log(f"val/{main}", values[main], prog_bar=True)
        for name in others:
            self.log(f"val/{name}", values[name])

    def on_test_epoch_end(self) -> None:
        values, tables = self.compute("test")
        self.results["test"] = values | tables
        self.log_dict({f"test/{name}": value for name, value in values.items()})

    def _reduced(self, loss: Tensor) -> Tensor:
        """Return the loss of the global batch if this step is logged, else that of this process."""
        done = self.trainer.global_step + 1
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.trainer.world_size == 1 or not every or done % every:
            return loss.detach()
        reduced = self.trainer.strategy.reduce(loss.detach(), reduce_op="mean")
        return reduced  # type: ignore[return-value]

    # -- sharding ---------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Convert weights to the precision, and shard them if the strategy has a device mesh."""
        if self._trainer is not None:  # before weights are loaded, which would be rounded else
            self.trainer.precision_plugin.convert_module(self)
        if self.device_mesh is not None and not isinstance(self, FSDPModule):
            shard(self, self.device_mesh)

    def on_validation_start(self) -> None:
        """Validate with the running statistics of the first process, which checkpoints contain."""
        if isinstance(self, FSDPModule):
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    # -- checkpoints ------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        """Check that the loss is finite, and end the epoch of the data module."""
        self._refuse_divergence(bool(self._last_loss().isfinite()))
        self.trainer.datamodule.end_epoch()  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the vocabulary; check that weights and optimizer states are finite."""
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        stored = Checkpoint(checkpoint)
        self._refuse_divergence(stored.is_finite(trainable))
        stored.add_model(self.vocabulary, sharded=isinstance(self, FSDPModule))

    def _last_loss(self) -> Tensor:
        """Return the training loss of the last step."""
        metrics: dict[str, Tensor] = self.trainer.callback_metrics  # type: ignore[attr-defined]
        return metrics.get("train/loss", torch.zeros(()))

    def _refuse_divergence(self, finite: bool) -> None:
        """End the run on all processes if one of them is not finite."""
        if self.trainer.strategy.reduce_boolean_decision(finite):
            return
        step = self.trainer.global_step  # type: ignore[attr-defined]
        loss = float(self._last_loss())
        raise TrainingError(
            f"training diverged: at step {step} train/loss is {loss:.4g}, and weights that are not "
            "finite are not saved; start a new run with a lower --model.optimizer.lr, or resume this "
            "one with --ckpt_path last and a lower --trainer.gradient_clip_val"
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that vocabulary and weights fit.

        Raises:
            UsageError: They do not.
        """
        stored = Checkpoint(checkpoint)
        if self.vocabulary != stored.vocabulary:
            raise UsageError(
                "the vocabulary of the data differs from that of the checkpoint: resume with the "
                "corpus of the run, or start a new run with --init_from"
            )
        if name := stored.misfit(self.state_dict()):
            raise UsageError(
                f"the checkpoint does not fit this model, as {name} shows: leave out the options "
                "that change its layers, or start a new run with --init_from"
            )

    # -- optimization -----------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Step the schedule with the optimizer."""
        try:
            optimizer = self.make_optimizer(parameter_groups(self))
        except ValueError as error:
            raise UsageError(f"model.optimizer: {error}") from error
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UsageError("a schedule needs an end: set --trainer.max_epochs or max_steps")
        schedule = self.make_schedule(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip also where Lightning refuses to: fused optimizers in bf16, which have no scaler."""
        plugin = self.trainer.precision_plugin
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        if getattr(plugin, "scaler", None) is None:
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            plugin.clip_gradients(optimizer, gradient_clip_val or 0.0, algorithm)
