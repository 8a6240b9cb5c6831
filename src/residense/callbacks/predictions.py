"""Collects what a task predicts from all processes and writes it as JSON lines, in the order of the input."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.utilities.types import STEP_OUTPUT

from residense.atomic import write_atomically
from residense.data.batches import Batch
from residense.messages import to_json


class Predictions(L.Callback):
    """Writes the predictions of `test` and `predict`.

    Args:
        path: file to write; null prints predictions and drops those of a test.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._parts: list[Any] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._parts = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._parts += outputs  # type: ignore[operator]  # ours are lists

    on_predict_batch_end = on_test_batch_end

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage not in ("test", "predict"):
            return
        parts = self._gather(trainer)
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "test":
            pl_module.results["test"]["compared"] = pl_module.compare(parts, data)  # type: ignore[index, operator]
        records = pl_module.records(parts, data, stage)  # type: ignore[operator]
        lines = "".join(to_json(record) + "\n" for record in records)
        if self.path is not None:
            write_atomically(self.path, lines.encode("utf-8", "surrogatepass"))
        elif stage == "predict":
            sys.stdout.buffer.write(lines.encode("utf-8", "surrogatepass"))
            sys.stdout.flush()

    def _gather(self, trainer: L.Trainer) -> list[Any]:
        if trainer.world_size == 1:
            return self._parts
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, self._parts)
        return [part for parts in gathered for part in parts]
