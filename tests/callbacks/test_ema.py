"""The moving average of the weights in real runs, against the same average by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from residense.callbacks.ema import EMA

STEPS, DECAY = 4, 0.7

Weights = dict[str, Tensor]


class Small(L.LightningModule):
    """A model with float and integer buffers that keeps a diary of its weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.trained: list[Weights] = []
        self.validated: list[Weights] = []

    def weights(self) -> Weights:
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.layers(batch) - batch.sum(1, keepdim=True)).square().mean()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.trained.append(self.weights())

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(self.weights())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Any]:
        rows = torch.randn(5 * STEPS, 3, generator=torch.Generator().manual_seed(1))
        return DataLoader(rows, batch_size=5)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.ones(2, 3), batch_size=2)  # type: ignore[arg-type]


def run(
    folder: Path, ema: EMA | None, epochs: int = 1, sanity: int = 0, resume: Path | None = None
) -> tuple[Small, dict[str, Any]]:
    """Train; the model afterwards, and the checkpoint of the last epoch."""
    model, keep = Small(), ModelCheckpoint(folder, "{epoch}")
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        num_sanity_val_steps=sanity,
        callbacks=[keep] if ema is None else [ema, keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, ckpt_path=resume)
    return model, torch.load(keep.best_model_path, weights_only=False)


def averages(trained: list[Weights], decay: float) -> Iterator[Weights]:
    """The first weights, and ever after the past and the present in their shares."""
    average = trained[0]
    yield average
    for weights in trained[1:]:
        average = {
            name: decay * average[name] + (1 - decay) * value for name, value in weights.items()
        }
        yield average


def assert_close(found: Weights, expected: Weights) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def assert_equal(found: Weights, expected: Weights) -> None:
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("decay", [DECAY, 0.999])
def test_validation_checkpoints_and_the_result_hold_the_average(
    tmp_path: Path, decay: float
) -> None:
    model, checkpoint = run(tmp_path, EMA(decay), epochs=2)
    assert len(model.trained) == 2 * STEPS
    *_, expected = averages(model.trained, decay)
    assert_close(checkpoint["state_dict"], expected)
    assert_close(model.weights(), expected)
    for epoch, seen in enumerate(model.validated, 1):
        *_, expected = averages(model.trained[: epoch * STEPS], decay)
        assert_close(seen, expected)
    assert_equal(checkpoint["current_model_state"], model.trained[-1])
    difference = (
        (checkpoint["state_dict"]["layers.0.weight"] - model.trained[-1]["layers.0.weight"])
        .abs()
        .max()
    )
    assert difference > 1e-3


def test_training_does_not_notice_the_average(tmp_path: Path) -> None:
    with_average, _ = run(tmp_path / "a", EMA(DECAY), epochs=2)
    without, _ = run(tmp_path / "b", None, epochs=2)
    for weights, expected in zip(with_average.trained, without.trained, strict=True):
        assert_equal(weights, expected)


def test_buffers_are_those_of_the_last_step(tmp_path: Path) -> None:
    model, checkpoint = run(tmp_path / "a", EMA(DECAY))
    other, expected = run(tmp_path / "b", None)
    for name, value in other.named_buffers():
        assert torch.equal(checkpoint["state_dict"][name], value)
        assert torch.equal(dict(model.named_buffers())[name], value)
        assert (
            value.dtype
            == expected["state_dict"][name].dtype
            == checkpoint["state_dict"][name].dtype
        )
    assert checkpoint["state_dict"]["layers.1.num_batches_tracked"] == STEPS


@pytest.mark.parametrize(("decay", "warned"), [(DECAY, True), (None, False)])
def test_statistics_that_belong_to_other_weights_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], decay: float | None, warned: bool
) -> None:
    run(tmp_path, EMA(decay))
    assert ("batch norm" in capsys.readouterr().err) == warned


def test_without_a_decay_the_weights_are_left_alone(tmp_path: Path) -> None:
    model, checkpoint = run(tmp_path / "a", EMA(), epochs=2)
    other, expected = run(tmp_path / "b", None, epochs=2)
    assert_equal(checkpoint["state_dict"], expected["state_dict"])
    assert_equal(model.weights(), other.weights())
    for seen, right in zip(model.validated, other.validated, strict=True):
        assert_equal(seen, right)


def test_the_sanity_check_sees_the_weights_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warm_start(model: Small) -> None:
        nn.init.constant_(model.layers[0].get_parameter("weight"), 0.25)

    monkeypatch.setattr(Small, "on_fit_start", warm_start)
    model, _ = run(tmp_path, EMA(DECAY), sanity=1)
    assert (model.validated[0]["layers.0.weight"] == 0.25).all()
    *_, expected = averages(model.trained, DECAY)
    assert_close(model.validated[1], expected)


def test_a_resumed_run_goes_on_with_the_average(tmp_path: Path) -> None:
    run(tmp_path / "half", EMA(DECAY))
    (half,) = (tmp_path / "half").iterdir()
    resumed, checkpoint = run(tmp_path / "rest", EMA(DECAY), epochs=2, resume=half)
    whole, expected = run(tmp_path / "whole", EMA(DECAY), epochs=2)
    assert_equal(resumed.trained[-1], whole.trained[-1])
    assert_equal(checkpoint["state_dict"], expected["state_dict"])
    assert_equal(checkpoint["averaging_state"], expected["averaging_state"])


def test_a_checkpoint_without_an_average_can_be_resumed_with_one(tmp_path: Path) -> None:
    before, _ = run(tmp_path / "half", None)
    (half,) = (tmp_path / "half").iterdir()
    model, checkpoint = run(tmp_path / "rest", EMA(DECAY), epochs=2, resume=half)
    assert len(model.trained) == STEPS
    assert not torch.equal(
        model.trained[0]["layers.0.weight"], before.trained[-1]["layers.0.weight"]
    )
    *_, expected = averages(model.trained, DECAY)
    assert_close(checkpoint["state_dict"], expected)


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        EMA(decay)
