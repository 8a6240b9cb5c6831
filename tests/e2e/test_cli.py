"""Options and mistakes on the command line."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from residense.cli import main

from .commands import ROOT, run


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


def test_a_folder_of_runs_is_no_run(
    trained: Path,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", f"--run_dir={trained.parent}"]) == 2
    assert (
        f"{trained.parent} is not a run, but contains some: --run_dir {trained}"
        in capfd.readouterr().err
    )
    assert main(["test", f"--ckpt_path={trained}"]) == 2
    assert (
        f"no checkpoint {trained}, but there is {trained}/checkpoints/best.ckpt"
        in capfd.readouterr().err
    )


BAD_CONFIGS = {
    "trainer: {max_epoch: 3}": "bad.yaml:1: there is no option max_epoch; did you mean trainer.max_epochs",
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


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_module_runs_like_main_py(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["residense", "fit", "--config=nothing.yaml"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("residense", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2 and "no config nothing.yaml" in capsys.readouterr().err
