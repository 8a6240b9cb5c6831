"""Scores as a table in the terminal, as W&B tables, and as a drawn confusion matrix."""

import io
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from residense.messages import printable


def print_scores(results: dict[str, Any], summary: dict[str, str]) -> None:
    """Print a table with a row for each type and each baseline, and the scores in `summary`."""
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
    line = ", ".join(f"{name} {results[key]:.2%}" for key, name in summary.items())
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


def log_tables(logger: WandbLogger, stage: str, results: dict[str, Any]) -> None:
    """Log the scores of each type, and the confusion matrix, as W&B tables."""
    rows = [[kind, *row.values()] for kind, row in results["types"].items()]
    logger.log_table(f"{stage}/types", ["type", "precision", "recall", "f1", "support"], rows)
    if "confusion" in results:
        named = zip(results["rows"], results["confusion"], strict=True)
        columns = ["gold \\ predicted", *results["columns"]]
        logger.log_table(f"{stage}/confusion", columns, [[name, *row] for name, row in named])
