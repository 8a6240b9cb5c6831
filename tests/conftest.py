"""What all tests share: a cache of their own, no W&B account, one thread, and one small trained model."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from residense.cli import main
from residense.run.preemption import stop_signals

SMALL = [
    "--logger=none",
    "--data.synthetic.size=1000",
    "--model.encoder.depth=2",
    "--data.batch_tokens=256",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that draw cases by chance take these."""
    parser.addoption("--n", type=int, default=4, help="how many cases to draw")
    parser.addoption("--seed", type=int, default=0, help="by which to draw them")


@pytest.fixture(autouse=True, scope="session")
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDENSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("NETRC", str(tmp_path_factory.mktemp("home") / "netrc"))
        for name in [n for n in os.environ if n.startswith(("WANDB_", "SLURM_", "RESIDENSE_RUN"))]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    }
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    stop_signals.received, stop_signals.deferred = None, False
    for name in ("RESIDENSE_RUN_DIR", "PL_GLOBAL_SEED", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small dense tagger, trained until it finds something."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    assert (
        main(
            ["fit", "--config=dense_ner.yaml", *SMALL, "--trainer.max_epochs=6", f"--run_dir={run}"]
        )
        == 0
    )
    return run


@pytest.fixture
def checkpoint(trained: Path) -> str:
    """Its best checkpoint."""
    return str(trained / "checkpoints" / "best.ckpt")


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Train for a few batches in an empty directory, a dense tagger unless a config says otherwise."""
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.limit_train_batches=2", "--trainer.max_epochs=1"]

    def train(*options: str) -> int:
        usual = ["--config=dense_ner.yaml"] * (
            not any(option.startswith("--config=") for option in options)
        )
        return main(["fit", *usual, *SMALL, *few, *options])

    return train
