"""Several processes add their gradients up once an optimiser step, however many batches it has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .runs import OPTIONS

MAIN = Path(__file__).parents[2] / "main.py"
TWO = ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
COUNTING = """
import json

import lightning as L
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook


class Count(L.Callback):
    def on_train_start(self, trainer, pl_module):
        self.rounds, self.reduced, self.steps = 0, 0, []
        trainer.strategy.model.register_comm_hook(None, self.count)

    def count(self, state, bucket):
        self.rounds += bucket.is_last()
        self.reduced += bucket.buffer().numel()
        return allreduce_hook(state, bucket)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append([trainer.global_step, self.rounds, self.reduced])

    def on_train_end(self, trainer, pl_module):
        size = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        with open(f"process{trainer.global_rank}.json", "w") as stream:
            json.dump([size, self.steps], stream)
"""


@pytest.mark.slow
def test_each_gradient_is_reduced_once_an_optimiser_step(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    options = [
        *OPTIONS,
        *TWO,
        "--ema.decay=null",
        "--trainer.max_epochs=2",
        "--trainer.callbacks=counting.Count",
    ]
    command = [sys.executable, str(MAIN), *options, "--run_dir=run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for process in (0, 1):
        size, after_batches = json.loads((tmp_path / f"process{process}.json").read_text())
        steps = [0, 0, 1, 1, 1, 2, 3]  # of an epoch: 3, 3 and 1 batches
        assert after_batches == [
            [step, step, step * size] for step in [*steps, *(step + 3 for step in steps)]
        ]
