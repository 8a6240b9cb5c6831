"""The report of a run: its parameters, the scores of its test, and how to resume it."""

import io
from signal import Signals
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from residense.atomic import write_atomically
from residense.messages import printable, say, to_json
from residense.run.directory import STAGES, RunDirectory
from residense.run.preemption import Stopped

MOST_DRAWN = 150  # classes of a confusion matrix that is drawn: more would be no picture


class Report(L.Callback):
    """Prints the scores of `validate` and `test`, and saves them as JSON and as W&B tables.

    Args:
        run: directory that the JSON is saved in; null saves nothing.
    """

    def __init__(self, run: RunDirectory | None = None):
        self.run = run

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
        resume = f"python main.py fit --run_dir {self.run} --ckpt_path last"
        if isinstance(exception, Stopped):
            done = "before the first step; this begins"
            if trainer.global_step:
                done = "saved; this goes on from the same step"
            say(f"{Signals(exception.number).name}: {done}: {resume}")
        elif isinstance(exception, KeyboardInterrupt):
            epoch = trainer.current_epoch + 1
            say(f"interrupted in epoch {epoch}; this goes on from what was saved last: {resume}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        results: Any = getattr(pl_module, "results", {}).get(STAGES.get(stage, ""))
        if results is None or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, WandbLogger):
                _log_tables(logger, STAGES[stage], results)
                logger.experiment.finish()
        if self.run is not None:
            if len(results.get("rows", ())) in range(1, MOST_DRAWN):
                write_atomically(self.run.confusion(stage), draw_confusion(results))
            content = to_json(results, indent=1) + "\n"
            write_atomically(self.run.results(stage), content.encode())  # last: marks it as done
        print_scores(results, pl_module.said)  # type: ignore[arg-type]


def print_scores(results: dict[str, Any], said: dict[str, str]) -> None:
    """Print a table with a row for each type, all types and each baseline, and the scores in `said`."""
    table = Table()
    table.add_column()
    for name in ("precision", "recall", "F1", "count"):
        table.add_column(name, justify="right")
    for kind, row in results["types"].items():
        table.add_row(Text(printable(kind)), *_cells(row))  # as Text: a label is no markup
    table.add_section()
    if "f1" in results:
        table.add_row("all (micro)", *_cells(results), style="bold")
    for name, row in results.get("compared", {}).items():
        table.add_row(name, *_cells(row))
    console = Console()
    console.print(table)
    line = ", ".join(f"{name} {results[key]:.2%}" for key, name in said.items())
    console.print(line, highlight=False, soft_wrap=True)


def draw_confusion(results: dict[str, Any]) -> bytes:
    """Draw the confusion matrix as a PNG, gold classes in rows, shaded by the share of the row."""
    from matplotlib.figure import Figure

    counts = np.array(results["confusion"])
    size = max(4.0, 1.5 + 0.35 * len(counts))
    figure = Figure((size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / counts.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
    columns, rows = (list(map(printable, results[side])) for side in ("columns", "rows"))
    axes.set_xticks(range(len(counts[0])), columns, rotation=90, parse_math=False)
    axes.set_yticks(range(len(counts)), rows, parse_math=False)
    axes.set(xlabel="predicted", ylabel="gold")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = count > counts[row].sum() / 2
            color = "white" if dark else "black"
            style: Any = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
            axes.text(column, row, str(count), **style)
    image = io.BytesIO()
    figure.savefig(image, dpi=120)
    return image.getvalue()


def _cells(row: dict[str, float]) -> list[str]:
    names = ("precision", "recall", "f1")
    scores = [f"{100 * row[name]:.2f}" if row["support"] else "-" for name in names]
    return [*scores, f"{row['support']:,}"]


def _log_tables(logger: WandbLogger, stage: str, results: dict[str, Any]) -> None:
    rows = [[kind, *row.values()] for kind, row in results["types"].items()]
    logger.log_table(f"{stage}/types", ["type", "precision", "recall", "f1", "support"], rows)
    if "confusion" in results:
        named = zip(results["rows"], results["confusion"], strict=True)
        columns = ["gold \\ predicted", *results["columns"]]
        logger.log_table(f"{stage}/confusion", columns, [[name, *row] for name, row in named])
