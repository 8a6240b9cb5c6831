"""Every config trains, and every pair of block and connection is a matter of one word each."""

import csv
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import residense
from residense.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted(path.name for path in CONFIGS.glob("*.yaml"))
PARTS = {
    "block": "model.encoder.block",
    "connection": "model.encoder.connection",
    "head": "model.head",
    "embeddings": "model.embeddings",
    "optimizer": "model.optimizer",
    "data": "data",
    "trainer": "trainer",
}
TOGETHER = {
    "connection/deepnorm.yaml": [
        "--model.encoder.block=block/conv.yaml"
    ],  # recurrent blocks refuse it
    "idcnn_ner.yaml": ["--model.encoder.depth=2"],  # less is nothing to share
    "vdcnn_cls.yaml": ["--model.encoder.depth=[1,1,1,1]"],  # a width for each
    "lstm_dense_pos.yaml": ["--data.path=pos.conll"],
    "dpcnn_cls.yaml": ["--model.encoder.depth=[1,1]"],
    "data/synthetic_texts.yaml": ["--config=dense_cls.yaml"],
}
FRAGMENTS = sorted(
    str(path.relative_to(CONFIGS)) for part in PARTS for path in CONFIGS.glob(f"{part}/*.yaml")
)
WITH = ("debug", "sweeps")  # go with an experiment
SEVERAL = (
    "trainer/ddp.yaml",
    "trainer/sharded.yaml",
)  # start processes: test_distributed.py, test_sharded.py


def cases(names: list[str]) -> list[object]:
    """Most are slow: tests/nn/ has all parts in the fast tier, each with each."""
    slow = (
        "block/",
        "connection/",
        "data/synthetic_t",
        "data/synthetic_z",
        "embeddings/",
        "optimizer/",
        "trainer/",
    )
    slow += (
        "conv_residual",
        "densenet",
        "dpcnn",
        "idcnn",
        "lstm_residual",
        "resnet",
        "transformer",
        "vdcnn",
    )
    return [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(slow)) for name in names]


@pytest.mark.parametrize("name", cases(EXPERIMENTS))
def test_experiment_trains(name: str, fit: Callable[..., int]) -> None:
    Path("pos.conll").write_text("dogs NOUN\nbark VERB\n\n" * 20)
    assert fit(f"--config={name}", *TOGETHER.get(name, [])) == 0


def test_parts_of_speech_are_not_learned_from_chunks(
    fit: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("train.conll").write_text("dogs NNS B-NP\nbark VBP B-VP\n. . O\n\n" * 20)
    assert fit("--config=lstm_dense_pos.yaml", "--data.path=train.conll") == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: train.conll: IOB2 tags (B-NP, B-VP) instead of plain labels")
    assert "--data.tag_column" in error
    assert (
        fit("--config=lstm_dense_pos.yaml", "--data.path=train.conll", "--data.tag_column=1") == 0
    )


@pytest.mark.parametrize("name", cases([name for name in FRAGMENTS if name not in SEVERAL]))
def test_fragment_trains(name: str, fit: Callable[..., int]) -> None:
    options = [
        f"--{PARTS[name.split('/')[0]]}={name}",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
    ]
    assert fit(*options, *TOGETHER.get(name, [])) == 0


def test_no_folder_of_configs_is_left_out() -> None:
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {*PARTS, *WITH}


@pytest.mark.parametrize(
    "config",
    [
        "dense_ner.yaml",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("dense_cls.yaml", "lstm_dense_slots.yaml")
        ),
    ],
)
def test_one_batch_is_learned_by_heart(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        "--data.synthetic.size=300",
        "--model.encoder.depth=2",
        "--data.batch_tokens=128",
        "--trainer.max_epochs=80",
    ]
    assert main(["fit", "-c", config, "-c", "debug/overfit.yaml", *small, "--run_dir=run"]) == 0
    with open("run/metrics.csv", newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 80 and losses[-1] < 0.1 * losses[0]


def test_a_profile_says_where_the_time_went(
    fit: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    assert fit("--config=dense_ner.yaml", "--config=debug/profile.yaml", "--logger=none") == 0
    assert re.search(r"run_training_batch +\t\|  [\d.]+ +\t\|  2 ", caplog.text)


def test_a_few_batches_of_everything_go_through(
    fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--config=dense_cls.yaml", "--config=debug/fast.yaml", "--run_dir=run") == 0
    assert json.loads(Path("run/test.json").read_text())["types"]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_config_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("block", "connection"),
    [
        ("transformer", "MultiwayDynamicDense"),
        pytest.param("conv", "Residual", marks=pytest.mark.slow),
        pytest.param("lstm", "Plain", marks=pytest.mark.slow),
        pytest.param("idcnn", "HyperConnections", marks=pytest.mark.slow),
    ],
)
def test_any_pair_is_a_matter_of_two_words(
    block: str, connection: str, fit: Callable[..., int]
) -> None:
    assert (
        fit(f"--model.encoder.block=block/{block}.yaml", f"--model.encoder.connection={connection}")
        == 0
    )


def test_tagging_refuses_to_pool_tokens(
    fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model.encoder.depth=[1,1]", "--model.encoder.transition.pool=max") == 2
    assert "a vector for each token to tag: use stride 1" in capsys.readouterr().err


@pytest.mark.parametrize("block", ["[]", "empty.yaml"])
def test_an_encoder_without_blocks_is_refused(
    block: str, fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.yaml").write_text("")
    assert fit(f"--model.encoder.block={block}") == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("error: model: encoder.block is empty")
    )


def written_options(tree: object) -> Iterator[tuple[str, str, object]]:
    """The class, name and value of each option that a config writes down."""
    if isinstance(tree, dict):
        for name, value in tree.get("init_args", {}).items():
            yield tree["class_path"], name, value
        for value in tree.values():
            yield from written_options(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from written_options(value)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_says_what_differs_from_the_defaults_and_no_more(path: Path) -> None:
    for name, option, value in written_options(yaml.safe_load(path.read_text())):
        if "." in name:  # a class of torch or Lightning
            continue
        part = getattr(residense, name)
        signatures = [inspect.signature(base) for base in part.__mro__[:-1]]
        parameters = {k: v for s in reversed(signatures) for k, v in s.parameters.items()}
        if option != "connection":  # the subject of an experiment is always named
            assert parameters[option].default != value, f"{option}: {value} is the default"
