"""A checkpoint is enough to validate, test and predict."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from residense.cli import main

from .commands import predict, run

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


def test_bytes_that_are_no_text_are_refused(
    checkpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["predict", f"--ckpt_path={checkpoint}", "--data.text", os.fsdecode(b"caf\xe9")]) == 2
    )
    assert "bytes that are not UTF-8" in capfd.readouterr().err
