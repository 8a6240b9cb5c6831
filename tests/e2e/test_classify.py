"""Classification and joint tagging from the command line: train, test, predict."""

import json
from pathlib import Path

import pytest
import wandb

from residense.cli import main

SMALL = [
    "--logger=none",
    "--model.encoder.depth=1",
    "--model.encoder.dim=32",
    "--trainer.max_epochs=4",
    "--data.batch_tokens=256",
]


PAIRS = [("cat", "dog"), ("dog", "cat")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose class is the first of the two animals that they name."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, places in (
        ("train", range(0, 600)),
        ("dev", range(600, 700)),
        ("test", range(700, 800)),
    ):
        rows = ["text\tlabel"]
        for i in places:
            first, second = PAIRS[i % 3 > 0]
            rows.append(f"the {first} number {i} saw a {second} again\t{first}")
        (folder / f"{split}.tsv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    options = [f"--data.path={corpus}", f"--run_dir={run}", "--model.optimizer.lr=0.01"]
    assert main(["fit", "--config=dense_cls.yaml", *SMALL, *options]) == 0
    return run


def test_order_is_learned_and_reported(trained: Path) -> None:
    results = json.loads((trained / "test.json").read_text())
    assert results["accuracy"] == 1.0 and results["types"]["cat"]["support"] == 33
    assert (trained / "test_confusion.png").read_bytes().startswith(b"\x89PNG")
    records = [
        json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()
    ]
    assert len(records) == 100
    assert records[0].keys() == {"text", "label", "probability", "probabilities", "gold"}
    assert all(record["label"] == record["gold"] == record["text"].split()[1] for record in records)


def test_predictions_do_not_depend_on_the_batch(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    found = []
    for tokens in (8, 5000):
        output = tmp_path / f"{tokens}.jsonl"
        options = [
            f"--ckpt_path={trained}/checkpoints/best.ckpt",
            f"--data.eval_batch_tokens={tokens}",
        ]
        assert (
            main(["predict", *options, f"--data.path={corpus}/test.tsv", f"--output={output}"]) == 0
        )
        found.append([json.loads(line) for line in output.read_text().splitlines()])
    assert [r["text"] for r in found[0]] == [r["text"] for r in found[1]] and len(found[0]) == 100
    for one, other in zip(*found, strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=2e-4)


def test_a_text_is_classified(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = f"--ckpt_path={trained}/checkpoints/best.ckpt"
    assert main(["predict", checkpoint, "--data.text=the dog number 7 saw a cat again"]) == 0
    assert json.loads(capfd.readouterr().out)["label"] == "dog"


def test_lines_without_a_text_keep_their_place(trained: Path, tmp_path: Path) -> None:
    path, output = tmp_path / "texts.txt", tmp_path / "found.jsonl"
    path.write_text("the dog number 7 saw a cat again\n\nthe cat number 8 saw a dog again\n")
    options = [
        f"--ckpt_path={trained}/checkpoints/best.ckpt",
        f"--data.path={path}",
        f"--output={output}",
    ]
    assert main(["predict", *options]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["text"] for record in records] == path.read_text().splitlines()
    assert [records[i]["label"] for i in (0, 2)] == ["dog", "cat"]


def test_what_is_cut_is_said(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"--data.text={'the dog ' * 200}"
    assert main(["predict", f"--ckpt_path={trained}/checkpoints/best.ckpt", text]) == 0
    assert "100.0 % of the texts are cut to 256 tokens (head is kept)" in capfd.readouterr().err


def test_columns_and_splits_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        f"{i},{PAIRS[i % 2][0]} {i} sat,some long body of text {i},{PAIRS[i % 2][0]}"
        for i in range(100)
    ]
    (tmp_path / "all.csv").write_text("id,title,text,label\n" + "\n".join(lines))
    few = ["--trainer.limit_train_batches=2", "--trainer.max_epochs=1", f"--run_dir={tmp_path}/run"]
    own = [f"--data.path={tmp_path}/all.csv", "--data.text_column=title"]
    assert main(["fit", "--config=dense_cls.yaml", *SMALL, *few, *own]) == 0
    (tmp_path / "new.csv").write_text((tmp_path / "all.csv").read_text())
    for command, path, count in (
        ("predict", "new.csv", 100),
        ("test", "new.csv", 100),
        ("test", "all.csv", 10),
    ):
        monkeypatch.chdir(tmp_path)
        options = [
            f"--ckpt_path={tmp_path}/run/checkpoints/best.ckpt",
            f"--data.path={path}",
            "--output=found.jsonl",
        ]
        assert main([command, *options]) == 0
        records = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
        assert len(records) == count and all(record["text"].endswith(" sat") for record in records)


def test_another_corpus_is_tested_as_it_is_found(trained: Path, tmp_path: Path) -> None:
    rows = [
        f"{first},the {first} number {i} saw a {second}"
        for i, (first, second) in enumerate(PAIRS * 5)
    ]
    (tmp_path / "test.csv").write_text("label,text\n" + "\n".join(rows))
    output = tmp_path / "found.jsonl"
    options = [
        f"--ckpt_path={trained}/checkpoints/best.ckpt",
        f"--data.path={tmp_path}",
        f"--output={output}",
    ]
    assert main(["test", *options]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["gold"] for record in records] == ["cat", "dog"] * 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        "MeanPooling",
        "LastPooling",
        "AttentionPooling",
        "ClassToken",
        "--model.class_weights=balanced",
    ],
)
def test_poolings_and_weights(option: str, corpus: Path, tmp_path: Path) -> None:
    option = option if option.startswith("--") else f"--model.pooling={option}"
    few = ["--trainer.limit_train_batches=2", "--trainer.max_epochs=1", f"--run_dir={tmp_path}/run"]
    assert (
        main(["fit", "--config=dense_cls.yaml", *SMALL, f"--data.path={corpus}", option, *few]) == 0
    )


@pytest.mark.slow
def test_several_labels(tmp_path: Path) -> None:
    words = ["red", "big", "old"]
    rows = []
    for i in range(400):
        here = [word for k, word in enumerate(words) if i >> k & 1]
        rows.append(f"a {' '.join(here)} thing {i}\t{'|'.join(here)}")
    (tmp_path / "all.tsv").write_text("\n".join(rows))
    data = [
        f"--data.path={tmp_path}/all.tsv",
        "--data.label_separator=|",
        "--data.text_column=0",
        "--data.label_column=1",
    ]
    run = tmp_path / "run"
    fit = [
        "fit",
        "--config=dense_cls.yaml",
        *SMALL,
        *data,
        "--model.optimizer.lr=0.01",
        "--trainer.max_epochs=14",
    ]
    assert main([*fit, f"--run_dir={run}"]) == 0
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    right = [sorted(record["labels"]) == sorted(record["gold"]) for record in records]
    assert sum(right) > 0.9 * len(right)


def test_slots_and_intents_together(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [*SMALL, "--data.synthetic.size=600", "--trainer.max_epochs=2", f"--run_dir={run}"]
    assert main(["fit", "--config=lstm_dense_slots.yaml", *options]) == 0
    results = json.loads((run / "test.json").read_text())
    assert results.keys() >= {"f1", "class_accuracy", "class_macro_f1", "classes", "types"}
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == 60
    assert records[0].keys() >= {"text", "entities", "gold", "label", "gold_label", "probabilities"}
    agree = sum(record["label"] == record["gold_label"] for record in records) / len(records)
    assert agree == pytest.approx(results["class_accuracy"])
    output = [f"--ckpt_path={run}/checkpoints/best.ckpt", f"--output={tmp_path}/found.jsonl"]
    assert main(["predict", *output, "--data.text=Bob lives here", "--data.text="]) == 0
    records = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert records[0]["label"] and records[1]["label"] is None and records[1]["entities"] == []


def test_words_to_tag_are_spelled_in_subwords(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "all.conll", tmp_path / "run"
    words = [["from", f"{place}ville", "to", f"{place}ton"] for place in map(chr, range(97, 123))]
    tags = ["O", "B-LOC", "O", "B-LOC"]
    path.write_text(
        "\n\n".join("\n".join(map("\t".join, zip(row, tags, strict=True))) for row in words * 10)
    )
    options = [
        f"--data.path={path}",
        "--data.subwords=100",
        "--data.min_frequency=99",
        "--data.batch_tokens=64",
    ]
    few = ["--logger=none", "--trainer.max_epochs=3", "--model.encoder.depth=1"]
    assert main(["fit", "--config=dense_ner.yaml", *few, *options, f"--run_dir={run}"]) == 0
    assert json.loads((run / "test.json").read_text())["f1"] == 1.0
    capfd.readouterr()
    assert (
        main(
            [
                "predict",
                f"--ckpt_path={run}/checkpoints/best.ckpt",
                "--data.text=from newville to London",
            ]
        )
        == 0
    )
    found = json.loads(capfd.readouterr().out)["entities"]
    assert [entity["text"] for entity in found] == ["newville", "London"]


def test_a_corpus_without_classes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--data=data/synthetic_en.yaml",
        "--data.synthetic.size=300",
        f"--run_dir={tmp_path}/run",
    ]
    assert main(["fit", "--config=dense_cls.yaml", *options]) == 2
    assert "the corpus has no classes: use data ClassificationDataModule" in capsys.readouterr().err
    assert wandb.run is None  # the next run of this process would be logged into it
    options = [
        "--data=data/synthetic_texts.yaml",
        "--data.synthetic.size=300",
        f"--run_dir={tmp_path}/run",
    ]
    assert main(["fit", "--config=dense_ner.yaml", *options]) == 2
    assert "the corpus has no tags: use data TaggingDataModule" in capsys.readouterr().err


def test_a_pooling_with_a_token_of_its_own_does_not_tag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--model.pooling=ClassToken",
        "--data.synthetic.size=300",
        f"--run_dir={tmp_path}/run",
    ]
    assert main(["fit", "--config=lstm_dense_slots.yaml", "--logger=none", *options]) == 2
    assert "pooling: ClassToken adds tokens, which have no tags" in capsys.readouterr().err
