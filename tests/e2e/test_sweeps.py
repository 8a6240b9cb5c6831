"""Sweeps run as they are: under W&B's agent, without W&B, and as arrays (tests/e2e/slurm)."""

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ..conftest import SMALL

ROOT = Path(__file__).parents[2]
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


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/sweep.py"""
    return load("sweep", monkeypatch)


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/seeds.py, which must train nothing."""
    module = load("seeds", monkeypatch)
    monkeypatch.setattr(module, "MAIN", "nothing.py")
    return module


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "wiring.yaml")) for n in SWEEPS]
)
def test_the_agent_types_what_trains(name: str, fit: Callable[..., int]) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    command = sweep(name)["command"]
    words = create_sweep_command_args({"args": first_values(sweep(name)["parameters"])})["args"]
    assert command[:3] == ["${env}", "${interpreter}", "${program}"] and command[-1] == "${args}"
    assert fit(*command[4:-1], *words) == 0


@pytest.mark.slow
def test_the_agent_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.wandb_agent import Agent

    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": "s",
        "WANDB_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them; taken back at the end
    monkeypatch.chdir(tmp_path)
    agent = Agent(api=None, queue=None, sweep_id="s")
    wiring = sweep("wiring.yaml")
    agent._sweep_command = [*wiring["command"], *FEW, "--run_dir=run"]
    agent._command_run(
        {
            "run_id": "abc",
            "program": str(ROOT / "main.py"),
            "args": first_values(wiring["parameters"]),
        }
    )
    assert agent._run_processes["abc"].wait(120) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["encoder"]["init_args"]["connection"][
        "class_path"
    ].endswith("Plain")
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
    with pytest.raises(SystemExit, match=r"learning\.yaml: not a grid \(`method: grid`"):
        script.cells(ROOT / "configs" / "sweeps" / "learning.yaml")


GOOD: dict[str, Any] = {
    "method": "grid",
    "parameters": {"seed_everything": {"values": [0, 1]}},
    "command": ["fit", "--config=dense_ner.yaml", "${args}"],
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"command": None}, "not a sweep as in configs/sweeps/"),
        ({"command": ["fit"]}, "'${args}' is not in list"),
        ({"parameters": {"seed_everything": 3}}, "not a sweep as in configs/sweeps/"),
        ({"parameters": {"seed_everything": {"values": 3}}}, "with `values` of each parameter"),
        ({"parameters": {"model.encoder.dept": {"values": [2, 3]}}}, "there is no option dept"),
        (
            {"parameters": {"model.encoder.depth": {"values": [2, "deep"]}}},
            "model.encoder.depth: Expected",
        ),
    ],
)
def test_what_is_wrong_with_a_grid_is_said_before_it_trains(
    wrong: dict[str, Any], message: str, script: ModuleType, seeds: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(GOOD | wrong))
    with pytest.raises(SystemExit) as ended:
        seeds.scores({tmp_path / str(i): cell for i, cell in enumerate(script.cells(path))})
    error = str(ended.value)
    assert error.startswith("error: ") and message in error and "\n" not in error


def test_a_grid_without_a_command_is_refused(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps({name: value for name, value in GOOD.items() if name != "command"}))
    with pytest.raises(SystemExit, match="command is missing"):
        script.cells(path)


@pytest.mark.slow
def test_a_grid_is_resumed_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(json.dumps(GOOD))
    command = [
        sys.executable,
        str(ROOT / "scripts" / "sweep.py"),
        "grid.yaml",
        "runs",
        *FEW,
        "--logger=none",
    ]
    first, again = (
        subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(2)
    )
    assert again == first[-2:]
    assert [line.split()[0] for line in again] == ["dense_ner.yaml-0", "dense_ner.yaml-1"]
    command[command.index(FEW[0])] = "--data.synthetic.size=400"
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (
        ended.returncode == 1
        and "--data.synthetic.size was 300 and is 400" in ended.stderr.splitlines()[-1]
    )


# -- finished runs -----------------------------------------------------------------------------------------------------

TRAINED = ["--config=dense_ner.yaml", *SMALL, "--trainer.max_epochs=6"]


def test_a_finished_run_is_reused(
    seeds: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    f1 = json.loads((trained / "test.json").read_text())["f1"]
    (row,) = seeds.scores({trained: [*TRAINED, "--name=other", "--project=other"]})
    assert row["F1"] == 100 * f1 and not capsys.readouterr().err
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "git.txt").write_text("# git rev-parse HEAD\n0123456\n")
    assert seeds.scores({copy: TRAINED}) == [row]
    assert (
        capsys.readouterr().err
        == f"{copy} was trained with another version of the code, see {copy}/git.txt\n"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--model.encoder.connection=Residual",
            "--model.encoder.connection was Dense and is Residual",
        ),
        ("--model.encoder.depth=3", "--model.encoder.depth was 2 and is 3"),
        ("--trainer.max_epochs=7", "--trainer.max_epochs was 6 and is 7"),
        ("--seed_everything=1", "--seed_everything was 0 and is 1"),
        ("--ema.decay=0.9", "--ema.decay was None and is 0.9"),
        ("--data.path=elsewhere", "--data.path was None and is elsewhere"),
    ],
)
def test_a_run_of_other_options_is_refused(
    option: str, message: str, seeds: ModuleType, trained: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        seeds.scores({trained: [*TRAINED, option]})
    assert (
        ended.value.code
        == f"error: {trained} contains a different run: {message}: use another directory"
    )


def test_a_run_of_other_data_is_refused(seeds: ModuleType, fit: Callable[..., int]) -> None:
    files = {name: Path(f"{name}.conll") for name in ("train", "validation", "test")}
    for i, file in enumerate(files.values()):
        file.write_text("".join(f"Anna B-PER\nmet O\nBob B-PER\n{n} O\n\n" for n in range(10 + i)))
    files["vectors"] = Path("vectors.txt")
    files["vectors"].write_text("anna 1 2\nbob 3 9\n")
    options = [*TRAINED, "--data.path=.", "--data.files=*.conll", "--data.vectors=vectors.txt"]
    options += ["--trainer.limit_train_batches=2", "--trainer.max_epochs=1"]
    assert fit(*options, "--run_dir=run") == 0
    assert seeds.scores({Path("run"): options})
    for name, file in files.items():
        content = file.read_text()
        file.write_text(content.replace("9", "8"))
        with pytest.raises(SystemExit) as ended:
            seeds.scores({Path("run"): options})
        assert (
            ended.value.code
            == f"error: run was trained on other data ({name} changed): use another directory"
        )
        file.write_text(content)


def test_a_score_of_nothing_is_left_out(seeds: ModuleType, tmp_path: Path) -> None:
    unseen = {"f1": 0.0, "support": 0}
    (tmp_path / "test.json").write_text(
        json.dumps({"f1": 0.5, "compared": {"unseen in training": unseen}})
    )
    assert seeds.score(tmp_path, []) == {"F1": 50.0}
