"""TensorBoard logs beside metrics.csv, which keeps exactly the rows of a resumed run."""

from pathlib import Path

import pytest

from residense.cli import main
from residense.run.loggers import History

FIT = [
    "fit",
    "--config=dense_ner.yaml",
    "--logger=tensorboard",
    "--data.synthetic.size=100",
    "--model.encoder.depth=1",
    "--trainer.max_epochs=1",
    "--test_after_fit=false",
]


def test_tensorboard_is_logged_beside_the_csv_file(tmp_path: Path) -> None:
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module)
    run = tmp_path / "run"
    assert main([*FIT, f"--run_dir={run}"]) == 0
    assert main([*FIT, f"--run_dir={run}", "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    assert len(events.Scalars("val/f1")) == 2
    assert len((run / "metrics.csv").read_text().splitlines()) > 2


def test_a_missing_tensorboard_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    available = "lightning.fabric.loggers.tensorboard._TENSORBOARD"
    monkeypatch.setattr(f"{available}_AVAILABLE", False)
    monkeypatch.setattr(f"{available}X_AVAILABLE", False)
    assert main([*FIT, f"--run_dir={tmp_path / 'run'}"]) == 2
    expected = "tensorboard is not installed: pip install tensorboard, or use --logger csv"
    assert capfd.readouterr().err == f"error: {expected}\n"
    assert not (tmp_path / "run").exists()


def test_rows_after_the_checkpoint_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    first = History(file)
    first.log_metrics({"a": 1}, 0)
    first.log_metrics({"a": 2, "b": "x,y"}, 1)
    first.log_metrics({"a": 3}, 2)
    assert file.read_text() == 'a,b,step\n1,,0\n2,"x,y",1\n3,,2\n'
    with file.open("a") as stream:
        stream.write("4,,")  # the process was killed
    resumed = History(file, resumed_at=2)
    assert resumed.num_rows == 2
    resumed.log_metrics({"a": 5}, 9)
    assert file.read_text() == 'a,b,step\n1,,0\n2,"x,y",1\n5,,9\n'
