"""Print tables and draw a figure of the results of `scripts/experiments/depth_sweep.py`.

    python scripts/experiments/depth_report.py docs/depth.csv docs/depth.png > docs/depth_table.md

Values are means and standard deviations over the seeds. A second figure, depth_synthetic.png, has
only the panels of the synthetic corpus at width 64.
"""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, str]
NAMES = {"embedded": "synthetic corpus", "wnut17": "WNUT-17"}
ORDER = ("Plain", "Residual", "Dense", "DepthWeighted", "HyperConnections")


def groups(rows: Iterable[Row], *fields: str) -> dict[tuple[str, ...], list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[field] for field in fields)].append(row)
    return dict(found)


def mean(rows: list[Row]) -> tuple[float, float]:
    losses = [float(row["loss"]) for row in rows]
    return statistics.mean(losses), statistics.stdev(losses) if len(losses) > 1 else 0.0


def table(rows: list[Row]) -> str:
    """Return a table with a row for each connection and a column for each depth."""
    cells = groups(rows, "connection", "depth")
    depths = sorted({int(row["depth"]) for row in rows})
    lines = [
        "| connection | "
        + " | ".join(f"depth {depth}" for depth in depths)
        + " | parameters, deepest |",
        "|---" * (len(depths) + 2) + "|",
    ]
    for name in sorted({row["connection"] for row in rows}, key=_place):
        found = [cells.get((name, str(depth)), []) for depth in depths]
        losses = ["{:.3f} ± {:.3f}".format(*mean(cell)) if cell else "" for cell in found]
        largest = [row["parameters"] for cell in found for row in cell][-1]
        lines.append("| " + " | ".join([f"`{name}`", *losses, f"{int(largest):,}"]) + " |")
    return "\n".join(lines)


def _place(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def plot(rows: list[Row], path: Path) -> None:
    """Draw the loss against the depth, with a panel for each corpus, block and kind of rows."""
    swept = [row for row in rows if row["connection"] in ORDER]
    panels = groups(swept, "rows", "corpus", "block")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 3.2 * lines), layout="constrained", squeeze=False
    )
    for axis, (key, panel) in zip(axes.flat, sorted(panels.items(), reverse=True), strict=False):
        for name, cells in sorted(
            groups(panel, "connection").items(), key=lambda item: _place(item[0][0])
        ):
            points = sorted(
                (int(depth), *mean(cell)) for (depth,), cell in groups(cells, "depth").items()
            )
            depths, means, spreads = zip(*points, strict=True)
            axis.errorbar(
                depths, means, spreads, marker="o", markersize=3, capsize=2, label=name[0]
            )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_title(", ".join([NAMES[key[1]], key[2], key[0]]), fontsize=9)
        axis.set_xlabel("blocks")
        axis.set_ylabel("training loss")
        axis.xaxis.set_major_formatter("{x:.0f}")
        for ticks in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            ticks("{x:.2g}")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(ORDER),
        fontsize=9,
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the results, print the tables and draw the figure."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with Path(sys.argv[1]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for (kind, corpus, block), part in sorted(
        groups(rows, "rows", "corpus", "block").items(), reverse=True
    ):
        print(f"### {NAMES[corpus]}, {block}, {kind}\n\n{table(part)}\n")
    path = Path(sys.argv[2])
    plot(rows, path)
    synthetic = [row for row in rows if (row["corpus"], row["rows"]) == ("embedded", "width 64")]
    plot(synthetic, path.with_stem(f"{path.stem}_synthetic"))


if __name__ == "__main__":
    main()
