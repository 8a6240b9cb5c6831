"""A run that is stopped or killed is one run in W&B, and W&B never stops a run."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from lightning.pytorch.utilities import rank_zero_only

from residense.cli import main
from residense.data.batches import BatchLoader
from residense.run.loggers import Wandb
from residense.run.preemption import stop_signals

from .runs import OPTIONS as SMALL
from .runs import assert_one_wandb_run, history

OPTIONS = [*SMALL, "--logger=wandb"]
ROOT = Path(__file__).parents[2]


def stop(batch: int, number: int, options: list[str]) -> None:
    """Train, and get a signal when the `batch`-th batch of the training split is handed out."""
    share, count = BatchLoader._share, [0]

    def counting(self: BatchLoader, *given: Any) -> Any:
        count[0] += self.shuffle
        if self.shuffle and count[0] == batch:
            os.kill(os.getpid(), number)
        return share(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchLoader, "_share", counting)
        with pytest.raises(SystemExit) as stopped:
            main(options)
    assert stopped.value.code == 128 + number
    stop_signals.received = None


@pytest.fixture(scope="module")
def terminated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was stopped in its third epoch, after 7 of 9 steps."""
    run = tmp_path_factory.mktemp("terminated") / "run"
    stop(15, signal.SIGTERM, [*OPTIONS, f"--run_dir={run}"])
    return run


@pytest.fixture
def run(terminated: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(terminated, tmp_path / "run", symlinks=True))


def resume(run: Path) -> None:
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that W&B starts."""
    runs: list[Any] = []
    init = wandb.init
    monkeypatch.setattr("wandb.init", lambda **options: runs.append(init(**options)) or runs[-1])
    return runs


def test_a_run_that_is_stopped_twice_is_one_run(run: Path) -> None:
    resume = [*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]
    stop(1, signal.SIGTERM, resume)
    assert main(resume) == 0
    assert len(list(run.glob("wandb/*run-*"))) == 3
    assert_one_wandb_run(run)
    losses = [row["step"] for row in history(run) if row["train/loss"]]
    assert losses == [str(step) for step in range(9)]


def test_a_resumed_run_does_not_overwrite_the_one_before(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    init = wandb.init
    monkeypatch.setattr("wandb.init", lambda **options: given.update(options) or init(**options))
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert given["resume"] == "allow"
    assert given["id"] == (run / "wandb_id.txt").read_text().strip()


@pytest.mark.slow
def test_a_run_without_wandb_can_go_on_with_it(run: Path) -> None:
    shutil.rmtree(run / "wandb")
    (run / "wandb_id.txt").unlink()
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0
    assert_one_wandb_run(run)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_logs(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, float]] = []
    monkeypatch.setattr("wandb.init", lambda **options: SimpleNamespace(log=logged.append))
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    logger = Wandb(tmp_path, offline=True)
    logger.log_metrics({"loss": 1.0}, 2)
    logger.experiment.log({"more": 1.0})
    expected = [{"loss": 1.0, "trainer/global_step": 2}, {"more": 1.0}]
    assert logged == (expected if rank == 0 else [])


def test_the_whole_config_is_logged_once(started: list[Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*OPTIONS, f"--run_dir={run}", "--trainer.max_epochs=1"]) == 0
    logged = dict(started[0].config)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert {name: logged[name] for name in config} == config
    extra = {"config", "git", "parameters"}  # and nothing by a second name
    assert logged.keys() - config.keys() == extra


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True])
def test_without_a_network_a_run_is_logged_offline(
    answers: bool,
    silent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent if answers else "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")  # taken back at the end
    wandb.teardown()  # it has read the variables of other tests
    run = tmp_path / "run"
    assert main([*OPTIONS, f"--run_dir={run}", "--trainer.max_epochs=1"]) == 0
    (said,) = (line for line in capfd.readouterr().err.splitlines() if "W&B" in line)
    assert re.match(
        r"W&B is offline \(.*(refused|deadline exceeded)\); `wandb sync \S+` uploads", said
    )
    (segment,) = run.glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in segment.read_bytes()


def train(run: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own with these variables."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        *OPTIONS,
        f"--run_dir={run}",
        "--test_after_fit=true",
    ]
    return subprocess.run(command, env=others | variables, capture_output=True, text=True)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = train(tmp_path / "run", HOME=str(tmp_path / "home"), MPLCONFIGDIR=str(tmp_path))
    assert done.returncode == 0 and " INFO " not in done.stderr, done.stderr
    assert list((tmp_path / "run").glob("wandb/offline-run-*/files/media/table/test/*.json"))


def test_that_wandb_is_missing_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*OPTIONS, f"--run_dir={tmp_path}/run"]) == 2
    assert (
        capfd.readouterr().err
        == "error: wandb is not installed: pip install wandb, or use --logger csv\n"
    )


@pytest.mark.slow
def test_a_key_that_is_none_is_said_in_a_line(tmp_path: Path) -> None:
    done = train(tmp_path / "run", WANDB_API_KEY="abc")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(errors) == 1 and "error: W&B: " in errors[0] and "WANDB_MODE=offline" in errors[0]
