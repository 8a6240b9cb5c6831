"""The scripts that make the figures of the documentation, with less to do."""

import csv
import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _as_scripts_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(name).name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_depth_sweep_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, results = script("experiments/depth_sweep"), tmp_path / "depth.csv"
    monkeypatch.setattr(sweep, "STEPS", 3)
    few = [sweep.Cell("width 64", "embedded", "conv", name, 2, 0) for name in ("Plain", "Dense")]
    few.append(sweep.Cell("equal parameters", "embedded", "conv", "Dense", 2, 0))
    for cells in (few[:2], few):
        monkeypatch.setattr(sweep, "cells", lambda cells=cells: iter(cells))
        monkeypatch.setattr(sys, "argv", ["depth_sweep.py", str(results)])
        sweep.main()
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rows"], row["connection"]) for row in rows] == [
        (cell.rows, cell.connection) for cell in few
    ]
    residual = sweep.count(sweep.encoder(few[0], 50, connection="Residual"))
    equal = sweep.count(sweep.encoder(few[2], 50, sweep.equal_width(few[2], 50)))
    assert equal == pytest.approx(residual, rel=0.1)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["depth_report.py", str(results), str(tmp_path / "depth.png")])
    runpy.run_path(str(ROOT / "scripts" / "experiments" / "depth_report.py"), run_name="__main__")
    assert (
        f"| `Plain` | {float(rows[0]['loss']):.3f} ± 0.000 | {int(rows[0]['parameters']):,} |"
        in capsys.readouterr().out
    )
    for figure in ("depth.png", "depth_synthetic.png"):
        assert (tmp_path / figure).stat().st_size > 1000


def test_a_wiring_is_drawn_from_its_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = script("experiments/draw_connections")
    monkeypatch.setattr(drawing, "STEPS", 1)
    map_ = drawing.trained_map(drawing.CONNECTIONS["Residual"])
    torch.testing.assert_close(map_.sum(1), torch.ones(7))
    assert torch.equal(map_ > 0, torch.ones(7, 7).tril().bool())
    drawing.draw(map_, "Residual", tmp_path / "residual.png")
    assert (tmp_path / "residual.png").stat().st_size > 1000


def test_concatenation_costs_more_than_dense_at_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    cost: Any = script("experiments/dense_cost")
    monkeypatch.setattr(cost, "SHAPE", (2, 16))
    saved = {name: cost.saved_bytes(make(16)) for name, make in cost.VARIANTS.items()}
    assert saved["recomputed"] < saved["Dense"] < 0.6 * saved["torch.cat"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "--config a.yaml",
            "--nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --signal=SIGUSR1@120 "
            "--export=ALL,RESIDENSE_GRACE=120 SCRIPT --config a.yaml",
        ),
        (
            "--nodes 2 --gpus-per-node 4 --time 8:00:00 --array 0-9%4 --grace 60 --config a.yaml "
            "--trainer.max_epochs 3",
            "--nodes=2 --ntasks-per-node=4 --cpus-per-task=4 --gpus-per-node=4 --signal=SIGUSR1@60 "
            "--export=ALL,RESIDENSE_GRACE=60 --time=8:00:00 "
            "--array=0-9%4 SCRIPT --config a.yaml --trainer.max_epochs 3",
        ),
    ],
)
def test_a_job_is_submitted_with_what_was_typed(words: str, expected: str) -> None:
    submit = script("submit")
    assert submit.command(words.split()) == (
        ["sbatch", *expected.replace("SCRIPT", str(submit.SCRIPT)).split()],
        False,
    )
    assert submit.command([*words.split(), "--dry-run"])[1]
