"""The report of a run: parameters, predictions, scores, and how to resume it."""

import sys
from pathlib import Path
from signal import Signals
from typing import Any, cast

import lightning as L
import torch.distributed
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT

from residense.atomic import write_atomically
from residense.callbacks.scores import draw_confusion, log_tables, print_scores
from residense.data.batches import Batch
from residense.messages import program, say, to_json
from residense.run.directory import STAGES, RunDirectory
from residense.run.preemption import Stopped
from residense.tasks.base import Task

MOST_DRAWN = 150  # classes of a confusion matrix that is drawn: more would be no picture


class Report(L.Callback):
    """Writes predictions as JSON lines, and prints and saves the scores of `validate` and `test`.

    Args:
        run: Directory that scores are saved in; None saves nothing.
        output: File for the predictions; None prints those of `predict` and drops those of a test.
    """

    def __init__(self, run: RunDirectory | None = None, output: Path | None = None):
        self.run = run
        self.output = output
        self._predicted: list[Any] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        parts = {}
        for name, part in pl_module.named_children():
            if size := sum(p.numel() for p in part.parameters()):
                parts[name] = size
        sizes = ", ".join(f"{name} {size:,}" for name, size in parts.items())
        say(f"{sum(parts.values()):,} parameters: {sizes}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams({"parameters": parts})

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if self.run is None or not trainer.is_global_zero:
            return
        resume = f"{program()} fit --run_dir {self.run} --ckpt_path last"
        if isinstance(exception, Stopped):
            done = "before the first step; start it with"
            if trainer.global_step:
                done = "saved; resume at the same step with"
            say(f"{Signals(exception.number).name}: {done}: {resume}")
        elif isinstance(exception, KeyboardInterrupt):
            epoch = trainer.current_epoch + 1
            say(f"interrupted in epoch {epoch}; resume from the last checkpoint with: {resume}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._predicted = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._predicted += outputs  # type: ignore[operator]  # ours are lists

    on_predict_batch_end = on_test_batch_end

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        task = cast(Task, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        predicted = self._gather(trainer) if stage in ("test", "predict") else []
        if not trainer.is_global_zero:
            return
        if stage in ("test", "predict"):
            self._write(task.records(predicted, data, stage), stage)
        results = task.results.get(STAGES.get(stage, ""))
        if results is not None:
            if stage == "test":
                results["compared"] = task.compare(predicted, data)
            self._save(trainer, stage, results)
            print_scores(results, task.summary)

    def _gather(self, trainer: L.Trainer) -> list[Any]:
        """Return the predictions of all processes."""
        if trainer.world_size == 1:
            return self._predicted
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, self._predicted)
        return [one for part in gathered for one in part]

    def _write(self, records: Any, stage: str) -> None:
        lines = "".join(to_json(record) + "\n" for record in records)
        content = lines.encode("utf-8", "surrogatepass")
        if self.output is not None:
            write_atomically(self.output, content)
        elif stage == "predict":
            sys.stdout.buffer.write(content)
            sys.stdout.flush()

    def _save(self, trainer: L.Trainer, stage: str, results: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, WandbLogger):
                log_tables(logger, STAGES[stage], results)
                logger.experiment.finish()
        if self.run is None:
            return
        if len(results.get("rows", ())) in range(1, MOST_DRAWN):
            write_atomically(self.run.confusion(stage), draw_confusion(results))
        content = to_json(results, indent=1) + "\n"
        write_atomically(self.run.results(stage), content.encode())  # last: marks it as done
