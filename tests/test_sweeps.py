"""Sweeps run as they are: under W&B's agent, without W&B, and as arrays (tests/slurm)."""

import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SWEEPS = sorted(path.name for path in (ROOT / "configs" / "sweeps").glob("*.yaml"))
FEW = [
    "--data.synthetic.size=300",
    "--data.batch_tokens=256",
    "--trainer.limit_train_batches=1",
    "--trainer.max_epochs=1",
]


def sweep(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "sweeps" / name).read_text())


def first_values(parameters: dict[str, Any]) -> dict[str, Any]:
    """What W&B's server would try first, in the form in which it tells its agent."""
    values = {name: p["values"][0] if "values" in p else p["min"] for name, p in parameters.items()}
    return {name: {"value": value} for name, value in values.items()}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/sweep.py"""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "scripts" / "sweep.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "wiring.yaml")) for n in SWEEPS])
def test_the_agent_types_what_trains(name: str, fit: Callable[..., int]) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    command = sweep(name)["command"]
    words = create_sweep_command_args({"args": first_values(sweep(name)["parameters"])})["args"]
    assert command[:3] == ["${env}", "${interpreter}", "${program}"] and command[-1] == "${args}"
    assert fit(*command[4:-1], *words) == 0


@pytest.mark.slow
def test_the_agent_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.wandb_agent import Agent

    for name, value in {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "s", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them; taken back at the end
    monkeypatch.chdir(tmp_path)
    agent = Agent(api=None, queue=None, sweep_id="s")
    wiring = sweep("wiring.yaml")
    agent._sweep_command = [*wiring["command"], *FEW, "--run_dir=run"]
    agent._command_run({"run_id": "abc", "program": str(ROOT / "main.py"), "args": first_values(wiring["parameters"])})
    assert agent._run_processes["abc"].wait(120) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["encoder"]["init_args"]["connection"]["class_path"].endswith("Plain")
    assert (tmp_path / "run" / "wandb_id.txt").read_text() == "abc\n"


def test_a_grid_has_a_cell_for_each_combination(script: ModuleType) -> None:
    grid = [
        [
            "--config=dense_ner.yaml",
            f"--model.encoder.connection={c}",
            f"--model.encoder.depth={d}",
            f"--seed_everything={s}",
        ]
        for c, d, s in itertools.product(("Plain", "Residual", "Dense"), (2, 4), (0, 1, 2))
    ]
    assert script.cells(ROOT / "configs" / "sweeps" / "wiring.yaml") == grid
    with pytest.raises(SystemExit, match=r"learning\.yaml: only `method: grid`"):
        script.cells(ROOT / "configs" / "sweeps" / "learning.yaml")


@pytest.mark.slow
def test_a_grid_goes_on_where_it_stopped(tmp_path: Path) -> None:
    grid = {"method": "grid", "parameters": {"seed_everything": {"values": [0, 1]}}}
    grid["command"] = ["fit", "--config=dense_ner.yaml", "${args}"]
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    done = tmp_path / "runs" / "dense_ner.yaml-0"
    done.mkdir(parents=True)
    (done / "test.json").write_text('{"f1": 0.5}')
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), "grid.yaml", "runs", *FEW, "--logger=none"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [path.name for path in done.iterdir()] == ["test.json"]
    assert ended.stdout.splitlines()[-2].split() == ["dense_ner.yaml-0", "F1", "50.00"]
    assert ended.stdout.splitlines()[-1].split()[:2] == ["dense_ner.yaml-1", "F1"]
