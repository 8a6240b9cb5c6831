"""Small runs whose every bit can be compared."""

import csv
from pathlib import Path
from typing import Any

import torch

SMALL = [
    "fit",
    "--data.synthetic.size=300",
    "--data.batch_tokens=256",
    "--data.eval_batch_tokens=128",  # 5 batches to validate
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=7",
    "--trainer.log_every_n_steps=1",
]
OPTIONS = [
    *SMALL,
    "--config=dense_ner.yaml",
    "--model.encoder.depth=2",
    "--trainer.accumulate_grad_batches=3",  # 3 optimiser steps an epoch, of 3, 3 and 1 batches
    "--ema.decay=0.9",
    "--logger=csv",
    "--test_after_fit=false",
]
RESULTS = ("test.json", "predictions.jsonl", "test_confusion.png")


def state(run: Path) -> dict[str, Any]:
    """What a run has come to: weights, optimiser, generators, early stopping, the best score."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = {
        key: checkpoint[key]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "generators", "epoch")
    }
    callbacks = checkpoint["callbacks"]
    kept["stopping"] = [callbacks[key] for key in callbacks if key.startswith("EarlyStopping")]
    kept["best"] = [
        callbacks[key]["best_model_score"] for key in callbacks if key.startswith("ModelCheckpoint")
    ]
    return kept | {
        "average": checkpoint.get("current_model_state"),
        "step": checkpoint["global_step"],
    }


def best(run: Path) -> dict[str, Any]:
    """The best model: its weights, and when it was saved."""
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    return {
        key: checkpoint[key] for key in ("state_dict", "optimizer_states", "epoch", "global_step")
    }


def history(run: Path) -> list[dict[str, str]]:
    """What was logged, but for speed."""
    with (run / "metrics.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    return [{k: v for k, v in sorted(row.items()) if k != "train/tokens_per_s"} for row in found]


def files(run: Path) -> set[str]:
    """The names of all files, but for those of W&B, of which each start has its own."""
    found = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] != "wandb"}


def assert_same(found: Any, expected: Any, place: str = "") -> None:
    """Equal to the last bit, tensors and all."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected:
            assert_same(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for i, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{place}[{i}]")
    else:
        assert found == expected, place


def assert_same_runs(run: Path, expected: Path) -> None:
    """Ended in the same state, by the same history, with the same results and nothing else in the directory."""
    assert files(run) == files(expected)
    assert_same(state(run), state(expected))
    assert_same(best(run), best(expected))
    assert history(run) == history(expected)
    for name in RESULTS:
        if (expected / name).exists():
            assert (run / name).read_bytes() == (expected / name).read_bytes(), name


def assert_one_wandb_run(run: Path) -> None:
    """Each start has logged to the W&B run whose id is kept."""
    name = (run / "wandb_id.txt").read_text().strip()
    assert {path.name for path in run.glob("wandb/*run-*/*.wandb")} == {f"run-{name}.wandb"}
