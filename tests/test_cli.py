"""The command line as users type it."""

import csv
import inspect
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

import residense
from residense.cli import main
from residense.run.checkpoint_io import read as read_checkpoint

README = (Path(__file__).parents[1] / "README.md").read_text()

ROOT = Path(__file__).parents[1]
HOSTILE = [
    "Note: Angela Merkel flew to Paris.",
    "- item of Anna Smith",
    "null",
    "true",
    "",
    "[x] {a: b} 'c' \"d\" # e",
    "😀 Anna 👩‍👩‍👧 met Bob — on 3 May",
    "--trainer.max_epochs 3",
    "tab\there \\n",
    "1e-3",
]


def predict(capfd: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert main(["predict", *options]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def run(*words: str, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "main.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)  # type: ignore[call-overload]


# -- a run and what it leaves ------------------------------------------------------------------------------------------


def test_fit_leaves_one_self_contained_run_directory(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    assert fit("--name=mine", "--logger=csv") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (directory,) = (tmp_path / "runs" / "mine").iterdir()
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml",
        "command.txt",
        "git.txt",
        "packages.txt",
        "metrics.csv",
        "test.json",
        "test_confusion.png",
        "predictions.jsonl",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert (
        yaml.safe_load((directory / "config.yaml").read_text())["data"]["init_args"]["synthetic"][
            "size"
        ]
        == 1000
    )
    assert "--name=mine" in (directory / "command.txt").read_text()


@pytest.mark.slow
def test_two_runs_started_together_do_not_meet(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit() == fit() == 0
    assert len(list((tmp_path / "runs" / "dense_ner").iterdir())) == 2


def test_the_resolved_config_repeats_the_run(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--run_dir=first", "--model.encoder.connection=Residual") == 0
    assert main(["fit", "--config=first/config.yaml", "--run_dir=second"]) == 0
    results = [
        json.loads((tmp_path / name / "test.json").read_text()) for name in ("first", "second")
    ]
    assert results[0] == results[1]
    weights = [
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_wandb_is_offline_without_a_key_and_stays_in_the_run_directory(tmp_path: Path) -> None:
    few = [
        "--data.synthetic.size=1000",
        "--trainer.limit_train_batches=2",
        "--trainer.max_epochs=1",
    ]
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "main.py"),
        "fit",
        "--config=dense_ner.yaml",
        *few,
    ]
    alone = {
        name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
    }  # that of other tests
    done = subprocess.run(
        [*command, "--run_dir=here"], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert list((tmp_path / "here" / "wandb").glob("offline-run-*/*.wandb"))
    assert list(
        (tmp_path / "here" / "wandb").glob("offline-run-*/files/media/table/test/confusion*")
    )
    assert "wandb sync here/wandb" in done.stderr


def test_the_model_beats_looking_entities_up(trained: Path) -> None:
    results = json.loads((trained / "test.json").read_text())
    assert results["f1"] > results["compared"]["dictionary lookup"]["f1"]
    assert results["compared"]["unseen in training"]["support"] > 20


# -- a checkpoint is enough --------------------------------------------------------------------------------------------


def test_test_repeats_the_score_of_fit_to_every_digit(
    trained: Path, checkpoint: str, tmp_path: Path
) -> None:
    assert (
        main(["test", f"--ckpt_path={checkpoint}", f"--run_dir={tmp_path}", "--logger=none"]) == 0
    )
    again, first = (json.loads((path / "test.json").read_text()) for path in (tmp_path, trained))
    assert again == first and first["f1"] > 0


@pytest.mark.slow
def test_two_processes_score_as_one(trained: Path, checkpoint: str, tmp_path: Path) -> None:
    two = [
        "--trainer.devices=2",
        "--trainer.accelerator=cpu",
        "--trainer.strategy=ddp",
        "--data.eval_batch_tokens=300",
    ]
    done = run(
        "test",
        "--ckpt_path",
        checkpoint,
        "--run_dir",
        "two",
        "--logger",
        "none",
        *two,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    again, first = (
        json.loads((path / "test.json").read_text()) for path in (tmp_path / "two", trained)
    )
    assert again == first
    lines = [
        (path / "predictions.jsonl").read_text().splitlines()
        for path in (tmp_path / "two", trained)
    ]
    texts = [[json.loads(line)["text"] for line in part] for part in lines]
    assert texts[0] == texts[1]


def test_a_copied_checkpoint_predicts_alone(checkpoint: str, tmp_path: Path) -> None:
    shutil.copy(checkpoint, tmp_path / "copied.ckpt")
    text = "Please call Anna Smith on Monday."
    done = run("predict", "--ckpt_path", "copied.ckpt", "--data.text", text, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == text
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["copied.ckpt"]


def test_texts_are_taken_as_they_are(checkpoint: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = [word for text in HOSTILE for word in ("--data.text", text)]
    records = predict(capfd, f"--ckpt_path={checkpoint}", *options)
    assert [record["text"] for record in records] == HOSTILE
    for record in records:
        for entity in record["entities"]:
            assert record["text"][entity["start"] : entity["end"]] == entity["text"] != ""
            assert 0 < entity["probability"] <= 1


def test_predictions_do_not_depend_on_the_batch_size(
    checkpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = [
        f"--data.text={text} {filler}"
        for text in HOSTILE
        for filler in ("", "and Jordan in Paris " * 9)
    ]
    together, alone = (
        predict(capfd, f"--ckpt_path={checkpoint}", *texts, f"--data.eval_batch_tokens={budget}")
        for budget in (4096, 1)
    )
    probabilities = [
        [e.pop("probability") for r in records for e in r["entities"]]
        for records in (together, alone)
    ]
    assert together == alone
    assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-4) and probabilities[0]


def test_files_and_standard_input_are_predicted(
    checkpoint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "raw.txt").write_text("Anna met Bob.\n\nnull: x\n")
    (tmp_path / "columns.conll").write_text("Anna\tO\nmet\tO\n\nBob\tO\n")
    (tmp_path / "lines.jsonl").write_text('{"text": "Anna met  Bob"}\n{"tokens": ["Bob", "Lee"]}\n')
    monkeypatch.chdir(tmp_path)
    expected = {
        "raw.txt": ["Anna met Bob.", "", "null: x"],
        "columns.conll": ["Anna met", "Bob"],
        "lines.jsonl": ["Anna met  Bob", "Bob Lee"],
    }
    for name, texts in expected.items():
        assert (
            main(
                [
                    "predict",
                    f"--ckpt_path={checkpoint}",
                    f"--data.path={name}",
                    "--output=out.jsonl",
                ]
            )
            == 0
        )
        assert [
            json.loads(line)["text"] for line in Path("out.jsonl").read_text().splitlines()
        ] == texts
    with (tmp_path / "raw.txt").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert [r["text"] for r in predict(capfd, f"--ckpt_path={checkpoint}")] == expected[
            "raw.txt"
        ]


def test_a_corpus_of_texts_is_tested_in_the_places_of_its_texts(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    text = "I don't  know, Anna Smith."
    line = json.dumps({"text": text, "spans": [{"start": 15, "end": 25, "label": "PER"}]})
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text(f"{line}\n" * 5)
    assert fit(f"--data.path={tmp_path}", "--run_dir=here") == 0
    for record in map(json.loads, Path("here/predictions.jsonl").read_text().splitlines()):
        assert record["text"] == text
        assert record["gold"] == [{"start": 15, "end": 25, "type": "PER", "text": "Anna Smith"}]


def test_nothing_to_predict_is_no_error(checkpoint: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert predict(capfd, f"--ckpt_path={checkpoint}", "--data.text=") == [
        {"text": "", "entities": []}
    ]


def test_a_text_over_the_limit_is_predicted_whole(
    checkpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "Please call Anna Smith on Monday . " * 40
    (record,) = predict(
        capfd, f"--ckpt_path={checkpoint}", f"--data.text={text}", "--data.max_length=50"
    )
    assert record["text"] == text
    assert record["entities"][-1]["start"] > len(text) - 60


def test_a_split_file_is_tested_on_its_own_test_split(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all.conll").write_text("".join(f"word{i}\tO\nAnna\tB-PER\n\n" for i in range(40)))
    assert fit("--data.path=all.conll", "--run_dir=here") == 0
    first = json.loads(Path("here/test.json").read_text())
    for path in ([], ["--data.path=all.conll"]):
        assert (
            main(["test", "--ckpt_path=here/checkpoints/best.ckpt", "--run_dir=again", *path]) == 0
        )
        assert json.loads(Path("again/test.json").read_text()) == first
    assert main(["validate", "--ckpt_path=here/checkpoints/best.ckpt"]) == 0
    assert main(["test", "--ckpt_path=here/checkpoints/best.ckpt", "--data.scheme=IOB1"]) == 2
    assert "--data.scheme is fixed by the checkpoint" in capfd.readouterr().err


@pytest.mark.slow
def test_evaluating_leaves_the_history_of_the_run_alone(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    assert fit("--run_dir=here", "--logger=csv") == 0
    before = {path.name: path.read_bytes() for path in Path("here").iterdir() if path.is_file()}
    for subcommand in ("validate", "test", "predict"):
        text = ["--data.text=x"] if subcommand == "predict" else []
        assert main([subcommand, "--ckpt_path=best", "--run_dir=here", *text]) == 0
    assert {name: Path("here", name).read_bytes() for name in before} == before
    assert {path.name for path in Path("here").iterdir()} == {
        *before,
        "checkpoints",
        "val.json",
        "val_confusion.png",
    }


def test_the_vocabulary_of_the_checkpoint_wins_over_other_data(
    checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.conll").write_text("Anna\tB-PERSON\nmet\tO\n\n")
    assert main(["test", f"--ckpt_path={checkpoint}", f"--data.path={tmp_path}"]) == 0
    assert " 1 " in next(line for line in capfd.readouterr().out.splitlines() if "PERSON" in line)
    (tmp_path / "test.conll").write_text("Anna\tB-WOMAN\nmet\tO\n\n")
    assert main(["test", f"--ckpt_path={checkpoint}", f"--data.path={tmp_path}"]) == 2
    assert "labels that this model does not know: WOMAN" in capfd.readouterr().err


# -- going on ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_stopped(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--run_dir=here", "--logger=csv") == 0
    assert main(["fit", "--run_dir=here", "--ckpt_path=last", "--trainer.max_epochs=3"]) == 0
    with (tmp_path / "here" / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["val/f1"]]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert torch.load("here/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["1.0", "3"])
def test_a_resumed_run_trains_on_the_same_batches_at_the_same_rates(
    limit: str, fit: Callable[..., int]
) -> None:
    still = [
        "--model.embeddings.dropout=0",
        "--model.embeddings.word_dropout=0",
        "--model.encoder.branch.dropout=0",
    ]
    steady = [
        "--model.schedule.decay=constant",
        "--model.schedule.warmup=0",
        "--data.synthetic.size=200",
    ]
    options = [*still, *steady, f"--trainer.limit_train_batches={limit}"]
    assert fit("--run_dir=whole", "--trainer.max_epochs=4", *options) == 0
    assert fit("--run_dir=parts", "--trainer.max_epochs=2", *options) == 0
    assert main(["fit", "--run_dir=parts", "--ckpt_path=last", "--trainer.max_epochs=4"]) == 0
    whole, parts = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "parts")
    )
    assert whole["global_step"] == parts["global_step"]
    assert all(
        torch.equal(whole["state_dict"][name], parts["state_dict"][name])
        for name in whole["state_dict"]
    )


def test_continuing_nothing_begins(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--run_dir=here", "--ckpt_path=last") == 0
    assert (tmp_path / "here" / "checkpoints" / "last.ckpt").exists()


def test_a_run_is_not_overwritten(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (trained / "config.yaml").read_bytes()
    assert main(["fit", "--config=dense_ner.yaml", f"--run_dir={trained}"]) == 2
    assert "continue it with --ckpt_path last" in capfd.readouterr().err
    assert (trained / "config.yaml").read_bytes() == before


def test_resuming_with_another_model_is_refused(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [f"--run_dir={trained}", "--ckpt_path=last"]
    assert main(["fit", *options, "--model.optimizer.lr=0.5"]) == 2
    assert "model.optimizer.lr would change" in capfd.readouterr().err
    assert main(["fit", *options, "--model.encoder.connection=Residual"]) == 2
    assert "model.encoder.connection would change" in capfd.readouterr().err
    assert main(["fit", *options, "--data.synthetic.seed=7"]) == 2
    assert "data.synthetic.seed would change" in capfd.readouterr().err


def test_weights_are_taken_over_for_other_labels(
    fit: Callable[..., int], checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.conll").write_text("Anna\tB-WOMAN\nmet\tO\nBob\tB-MAN\n\n" * 5)
    assert fit(f"--init_from={checkpoint}", f"--data.path={tmp_path}", "--run_dir=tuned") == 0
    assert (
        "these start from scratch: head.end_transitions, head.score.bias" in capfd.readouterr().err
    )
    tuned, before = (
        torch.load(path, weights_only=True) for path in ("tuned/checkpoints/last.ckpt", checkpoint)
    )
    assert tuned["vocabulary"]["words"] == before["vocabulary"]["words"]
    assert {"S-MAN", "S-WOMAN"} < set(tuned["vocabulary"]["labels"])


# -- what is typed wins, or is refused ---------------------------------------------------------------------------------


def test_options_win_over_configs_wherever_they_stand(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text("trainer: {max_epochs: 7}\nname: from_file\n")
    assert (
        main(
            [
                "fit",
                "--name=typed",
                "--config=dense_ner.yaml",
                "--trainer.fast_dev_run=true",
                "-c",
                "own.yaml",
            ]
        )
        == 0
    )
    (directory,) = (tmp_path / "runs" / "typed").iterdir()
    assert yaml.safe_load((directory / "config.yaml").read_text())["trainer"]["max_epochs"] == 7


def test_an_existing_path_wins_over_the_config_of_that_name(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "dense_ner.yaml").write_text(
        (ROOT / "configs" / "lstm_residual_ner.yaml").read_text()
    )
    (tmp_path / "dense_ner.yaml").write_text(
        "name: local\nmodel: {class_path: Tagger}\ndata: {class_path: TaggingDataModule}"
    )
    assert fit() == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["local"]


def test_options_lost_with_their_class_are_named(
    fit: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    growth = "--model.encoder.connection.growth_rate=8"
    assert fit(growth, "--model.encoder.connection=Residual") == 0
    lost = "Dense was replaced by Residual; not used: growth_rate=8, bottleneck=0"
    assert lost in capfd.readouterr().err.splitlines()


MISTAKES = [
    (
        ["--trainer.max_epoch=3"],
        "there is no option trainer.max_epoch; did you mean trainer.max_epochs",
    ),
    (
        ["--model.encoder.connection=Residul"],
        "there is no class, file or value Residul for this option; did you mean Residual?",
    ),
    (["--model.encoder.connection.groth=3"], "there is no option groth; did you mean growth_rate?"),
    (
        ["--model.encoder.connection.growth_rate=x"],
        "connection.growth_rate: Expected a <class 'int'>",
    ),
    (
        ["--model.encoder.block=Residual"],
        "model.encoder.block: there is no class, file or value Residual for this option",
    ),
    (["--model.encoder.block=block/nope.yaml"], "there is no class, file or value block/nope.yaml"),
    (["--data.scheme=IOB3"], "data.scheme: Expected a typing.Literal['IOB1', 'IOB2'"),
    (["--trainer.accelerator=abacus"], "trainer: You selected an invalid accelerator"),
    (
        ["--config=nope.yaml"],
        "no config nope.yaml, neither here nor in configs/; there are: conv_residual_cls.yaml, ",
    ),
    (["--model.encoder.block=Conv", "--model.encoder.block.kernel=4"], "kernel must be positive"),
    (["--data.path=nowhere"], "nowhere"),
    (["--data.vectors=nowhere.txt"], "nowhere.txt: no such vector file"),
    (["--ckpt_path=nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
    (["--ckpt_path=last"], "needs --run_dir"),
    (["--config"], "--config needs a value"),
    (["--data.batch_tokens=0"], "data.batch_tokens: Not of type Positive: expected a whole number"),
    (["--data.split=[80,10,10]"], "three positive shares"),
    (["--model.optimizer.lr=-1"], "model.optimizer: Invalid learning rate"),
    (
        ["--model.optimizer.lr=high"],
        "model.optimizer.lr: there is no class, file or value high",
    ),
    (["--ema=0.99"], 'ema: Parser key "ema": Unable to load config "0.99"'),
    (["--data=nowhere.Data"], "data: No module named 'nowhere'"),
    (["--data.text=Anna"], "--data.text is for predict"),
    (["--ema.decay=2"], "ema.decay must lie between 0 and 1"),
    (["--seed_everything=-1"], "seed_everything: "),
    (
        ["--model.encoder.connection=Hyper"],
        "for this option; did you mean HyperConnections or ManifoldConstrained",
    ),
    (["--data.synthetic.size=5"], "data.synthetic.size must be at least 30; got 5"),
    (
        ["--model.encoder.depth=0"],
        "depth, dim and stride must be at least 1; got [0]",
    ),
    (
        ["--model.encoder.connection.growth_rate=0"],
        "growth_rate must be at least 1 and bottleneck at least 0; got 0 and 0",
    ),
    (
        ["--model.encoder.depth=[2,-1]"],
        "depth, dim and stride must be at least 1; got [2, -1]",
    ),
    (["--model.optimizer=null"], "model.optimizer: null is not a value for it"),
    (["--data.synthetic=null"], "data.synthetic: null is not a value for it"),
    (
        ["--model.encoder.branch.dropout=1.5"],
        "dropout and drop_path must be in [0, 1); got 1.5",
    ),
    (["--early_stopping.monitor=val/f2"], "val/f2 is not logged; there are: val/loss, val/f1"),
    (["--checkpoint.monitor=val/loss"], "val/loss is best when minimal: --checkpoint.mode min"),
    (["--checkpoint.dirpath=elsewhere"], "use --run_dir, not --checkpoint.dirpath"),
    (["--run_dir=own.yaml/x"], "own.yaml"),
    (["--output=nowhere/x.jsonl"], "is not a file in a folder that exists"),
    (["--init_from=x.ckpt", "--ckpt_path=last", "--run_dir=x"], "no checkpoint x.ckpt"),
]


@pytest.mark.parametrize(
    ("options", "expected"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES]
)
def test_a_mistake_is_answered_in_a_line(
    fit: Callable[..., int],
    options: list[str],
    expected: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own.yaml").write_text("name: own")
    assert fit(*options) == 2
    complaint = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(complaint) == 1 and expected in complaint[0]
    assert [path.name for path in tmp_path.iterdir()] in (
        ["own.yaml"],
        ["own.yaml", "runs"],
        ["runs", "own.yaml"],
    )
    assert not list(tmp_path.rglob("*.ckpt"))


BROKEN = """
class Broken(Gated):
    def read(self, state, i, mask):
        return state


class Needy(Gated):
    def __init__(self, layout: Layout, gain: float):
        super().__init__(layout)


class Wide(residense.Block):
    def forward(self, x, *, mask):
        return x.new_zeros(*x.shape[:2], 2 * self.out_dim)
"""


def test_a_connection_of_ones_own_is_a_class_in_a_file(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    example = README.split("```python\n# my_connections.py\n")[1].split("```")[0]
    shown = (
        inspect.cleandoc(residense.Connection.__doc__ or "")
        .split("gate:\n\n")[1]
        .split("\n\nArgs:")[0]
    )
    assert textwrap.dedent(shown) in example
    example = f"import residense\n{example}"
    (tmp_path / "my_own_connections.py").write_text(example + BROKEN)
    own = "--model.encoder.connection=my_own_connections"
    assert fit(f"{own}.Gated", "--model.encoder.connection.start=0.1", "--run_dir=here") == 0
    predict = ["predict", "--ckpt_path=best", "--run_dir=here", "--data.text=Anna"]
    assert main(predict) == 2 and "add --trust my_own_connections" in capfd.readouterr().err
    assert main([*predict, "--trust=my_own_connections"]) == 0
    assert (
        tmp_path / "here" / "own_code" / "my_own_connections.py"
    ).read_text() == example + BROKEN
    (tmp_path / "bad_syntax.py").write_text("class A(object)\n    pass\n")
    for value, expected in {
        f"{own}.Gatd": "module 'my_own_connections' has no attribute 'Gatd'",
        f"{own[:-1]}.Gated": "No module named 'my_own_connection'",
        f"{own}.py": "Invalid content in sub-config file my_own_connections.py",
        f"{own}.Needy": "the following arguments are required: gain",
        "--model.encoder.connection=bad_syntax.A": "expected ':' (bad_syntax.py, line 1)",
        "--model.encoder.connection=collections.Counter": "collections.Counter cannot be used here",
    }.items():
        capfd.readouterr()
        assert fit(value) == 2
        assert expected in capfd.readouterr().err
    # mistakes in code keep their tracebacks
    with pytest.raises(ValueError, match="too many values to unpack"):
        fit(f"{own}.Broken")
    with pytest.raises(ValueError, match="Wide returned a tensor of shape"):
        fit("--model.encoder.block=my_own_connections.Wide")


DIVERGING = """
import residense


class Diverging(residense.Plain):
    def end(self, state):
        return state / 0
"""


def test_a_loss_that_is_no_number_ends_the_run(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "diverging.py").write_text(DIVERGING)
    options = [
        "--model.encoder.connection=diverging.Diverging",
        "--model.head=Softmax",
        "--run_dir=run",
    ]
    assert fit(*options, "--trainer.log_every_n_steps=1") == 2
    assert "training diverged: at step 2 train/loss is nan" in capfd.readouterr().err
    assert not list((tmp_path / "run").rglob("best.ckpt"))


def test_the_vectors_are_said(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vectors.txt").write_text("the 1 2 3\n, 1 2 3\nzzz 1 2 3\n")
    assert fit("--data.vectors=vectors.txt", "--test_after_fit=false") == 0
    assert re.search(
        r"vectors\.txt: 3 vectors of width 3; \d+\.\d% of the tokens in training have",
        capfd.readouterr().err,
    )


def test_a_folder_of_runs_is_no_run(
    trained: Path,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", f"--run_dir={trained.parent}"]) == 2
    assert (
        f"{trained.parent} is no run, it holds some: --run_dir {trained}" in capfd.readouterr().err
    )
    assert main(["test", f"--ckpt_path={trained}"]) == 2
    assert (
        f"no checkpoint {trained}, but there is {trained}/checkpoints/best.ckpt"
        in capfd.readouterr().err
    )


BAD_CONFIGS = {
    "trainer: {max_epoch: 3}": "bad.yaml:1: there is no option trainer.max_epoch; did you mean trainer.max_epochs",
    "name: x\ntrainr: 3": "bad.yaml:2: there is no option trainr; did you mean trainer?",
    "model: {class_path: Tager}": "bad.yaml:1: model: there is no class, file or value Tager for this option",
    "model: [": "bad.yaml:1: not YAML",
    "- x": "bad.yaml: a config contains",
    "data: {class_path: Tagger}": "bad.yaml:1: data: there is no class, file or value Tagger for this option",
}


@pytest.mark.parametrize("content", BAD_CONFIGS)
def test_a_bad_config_is_answered_with_its_line(
    content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(content)
    assert main(["fit", "--config=bad.yaml"]) == 2
    errors = capfd.readouterr().err
    assert BAD_CONFIGS[content] in errors and len(errors.splitlines()) <= 5
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_checkpoint_is_refused(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    assert main(["predict", f"--ckpt_path={tmp_path / 'bad.ckpt'}", "--data.text=x"]) == 2
    assert "cannot be loaded as a checkpoint" in capfd.readouterr().err


def test_a_truncated_or_foreign_checkpoint_is_refused(
    checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.ckpt").write_bytes(Path(checkpoint).read_bytes()[:-1000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    for name, expected in (
        ("cut", "cannot be loaded"),
        ("foreign", "not a checkpoint of this project"),
    ):
        assert main(["test", f"--ckpt_path={tmp_path / name}.ckpt"]) == 2
        assert expected in capfd.readouterr().err


def test_a_checkpoint_of_other_layers_is_refused_in_a_line(
    checkpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", f"--ckpt_path={checkpoint}", "--model.encoder.depth=3"]) == 2
    assert "the checkpoint does not fit this model" in capfd.readouterr().err


def test_a_checkpoint_says_which_versions_wrote_it(checkpoint: str) -> None:
    versions = {
        "torch": str(torch.__version__),
        "lightning": L.__version__,
        "python": platform.python_version(),
    }
    assert read_checkpoint(checkpoint).content.get("versions") == {
        "residense": residense.__version__,
        **versions,
    }


def unknown_option(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["encoder"]["init_args"]["wings"] = 2


def unknown_class(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["head"]["class_path"] = "residense.nn.heads.Gone"


def missing_field(content: dict[str, Any]) -> None:
    del content["vocabulary"]["subwords"]


def unknown_field(content: dict[str, Any]) -> None:
    content["vocabulary"]["wings"] = 2


CHANGES = {
    unknown_option: "model.encoder: there is no option wings",
    unknown_class: "model.head: module 'residense.nn.heads' has no attribute 'Gone'",
    missing_field: "its vocabulary differs in 'subwords'",
    unknown_field: "its vocabulary differs in 'wings'",
}


@pytest.mark.parametrize(("change", "difference"), CHANGES.items())
@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"versions": {"residense": "9.8.7"}}, "saved by residense 9.8.7"),
        ({}, "saved by residense unknown"),
    ],
)
def test_a_checkpoint_of_another_version_says_what_does_not_fit(
    change: Callable[[dict[str, Any]], None],
    difference: str,
    versions: dict[str, Any],
    said: str,
    checkpoint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content, path = torch.load(checkpoint, weights_only=True), tmp_path / "other.ckpt"
    content.pop("versions", None)
    change(content)
    torch.save(content | versions, path)
    assert main(["predict", f"--ckpt_path={path}", "--data.text=Anna"]) == 2
    reader = f"read by residense {residense.__version__}"
    assert capfd.readouterr().err == f"error: {path}: {difference} ({said}, {reader})\n"


@pytest.mark.parametrize(("version", "age"), [(None, "an older"), (0, "an older"), (2, "a newer")])
def test_a_checkpoint_of_another_format_is_refused(
    version: int | None,
    age: str,
    checkpoint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["format"] = version
    if version is None:
        del content["format"]
    torch.save(content, tmp_path / "other.ckpt")
    assert main(["predict", f"--ckpt_path={tmp_path}/other.ckpt", "--data.text=Anna"]) == 2
    assert f"other.ckpt: a checkpoint of {age} format; use the version" in capfd.readouterr().err


def test_a_checkpoint_without_versions_that_fits_is_used(
    checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content.pop("versions", None)
    torch.save(content, tmp_path / "older.ckpt")
    text = "--data.text=Anna met Bob"
    assert predict(capfd, f"--ckpt_path={tmp_path / 'older.ckpt'}", text) == predict(
        capfd, f"--ckpt_path={checkpoint}", text
    )


def test_bytes_that_are_no_text_are_refused(
    checkpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["predict", f"--ckpt_path={checkpoint}", "--data.text", os.fsdecode(b"caf\xe9")]) == 2
    )
    assert "bytes that are not UTF-8" in capfd.readouterr().err


def test_evaluation_without_a_model_says_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--data.text=x"]) == 2
    assert "needs a trained model: --ckpt_path" in capfd.readouterr().err


def test_fit_without_a_config_says_which_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert (
        "such as --config dense_ner.yaml; there are: conv_residual_cls.yaml, dense_cls.yaml"
        in capfd.readouterr().err
    )


def test_the_version_says_what_a_report_should(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in (
        "# git x\nabc\n\n# git x\nmain\n\n# git x\n M a\n?? b\n\n# git x\n+1\n",
        "not a git repository\n",
    ):
        monkeypatch.setattr("residense.run.environment.git_state", lambda state=state: state)
        assert main(["--version"]) == 0
        said = capsys.readouterr().out
        assert f"torch {torch.__version__}" in said and " CPUs\n" in said
        assert said.endswith(
            "git: abc, 2 changed files\n"
            if state.startswith("#")
            else "git: not a git repository\n"
        )


def test_main_prints_help_as_a_command(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path, env={**os.environ, "COLUMNS": "100"})
    assert (
        done.returncode == 0
        and "fit" in done.stdout
        and "predict" in done.stdout
        and done.stderr == ""
    )


def test_a_checkpoint_is_used_by_another_class(
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "shouting.py").write_text(SHOUTING)
    monkeypatch.chdir(tmp_path)
    (plain,) = predict(capfd, f"--ckpt_path={checkpoint}", "--data.text=Anna Smith")
    (other,) = predict(
        capfd, f"--ckpt_path={checkpoint}", "--data.text=Anna Smith", "--model=shouting.Shouting"
    )
    assert other == plain | {"loud": True}


SHOUTING = """
from residense import Tagger


class Shouting(Tagger):
    def records(self, *given):
        return ({**record, "loud": True} for record in super().records(*given))
"""

COMPILED = """
from residense import Tagger


class Compiled(Tagger):
    def build(self, vocabulary):
        super().build(vocabulary)
        self.encoder.compile(backend="eager", dynamic=True)
"""


@pytest.mark.slow
def test_a_compiled_encoder_keeps_the_names_of_its_weights(
    fit: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compiled.py").write_text(COMPILED)
    options = ["--model.encoder.block=block/conv.yaml", "--logger=csv"]
    assert fit("--model=compiled.Compiled", "--run_dir=here", *options) == 0
    assert not [
        name
        for name in torch.load("here/checkpoints/best.ckpt")["state_dict"]
        if "_orig_mod" in name
    ]
    capfd.readouterr()
    options = ["--run_dir=here", "--ckpt_path=best", "--trust=compiled", "--data.text=Anna"]
    assert predict(capfd, *options) == predict(capfd, *options, "--model=Tagger")


WITNESS = """
import lightning as L


class Witness(L.Callback):
    def __init__(self, name: str):
        self.name = name

    def on_fit_end(self, trainer, pl_module):
        open(self.name, "w").close()
"""


def test_callbacks_are_added_to_those_there_are(fit: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "witness.py").write_text(WITNESS)
    for name in ("one", "two"):
        callback = {"class_path": "witness.Witness", "init_args": {"name": name}}
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"trainer": {"callbacks+": [callback]}})
        )
    assert (
        fit("--config=dense_ner.yaml", "--config=one.yaml", "--config=two.yaml", "--run_dir=here")
        == 0
    )
    assert all(
        Path(name).exists()
        for name in ("one", "two", "here/checkpoints/best.ckpt", "here/checkpoints/last.ckpt")
    )


@pytest.mark.slow
def test_a_sanity_check_leaves_no_trace(fit: Callable[..., int]) -> None:
    histories = []
    for steps in (0, 2):
        options = [
            "--logger=csv",
            "--trainer.max_epochs=2",
            f"--trainer.num_sanity_val_steps={steps}",
        ]
        assert fit(f"--run_dir={steps}", *options) == 0
        with Path(f"{steps}/metrics.csv").open(newline="") as stream:
            histories.append([{**row, "train/tokens_per_s": ""} for row in csv.DictReader(stream)])
    assert histories[0] == histories[1]


COPIES = {
    "src/residense/nn/blocks/conv.py": "--model.encoder.block=copied.Conv",
    "src/residense/nn/connections/residual.py": "--model.encoder.connection=copied.Residual",
    "src/residense/tasks/tagging.py": "--model=copied.Tagger",
    "src/residense/data/tagging.py": "--data=copied.TaggingDataModule",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", COPIES)
def test_a_copied_file_is_a_part_of_ones_own(source: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / source, tmp_path / "copied.py")
    few = [
        "--data.synthetic.size=300",
        "--trainer.limit_train_batches=2",
        "--trainer.max_epochs=1",
        "--run_dir=run",
    ]
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "fit",
        "--config=dense_ner.yaml",
        COPIES[source],
        *few,
    ]
    subprocess.run([*command, "--logger=none"], cwd=tmp_path, check=True, capture_output=True)
    best = [
        sys.executable,
        str(ROOT / "main.py"),
        "predict",
        "--ckpt_path=run/checkpoints/best.ckpt",
        "--trust=copied",
        "--data.text=Anna",
    ]
    assert (
        json.loads(subprocess.run(best, cwd=tmp_path, check=True, capture_output=True).stdout)[
            "text"
        ]
        == "Anna"
    )
    assert "copied." in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_module_runs_like_main_py(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["residense", "fit", "--config=nothing.yaml"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("residense", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2 and "no config nothing.yaml" in capsys.readouterr().err
