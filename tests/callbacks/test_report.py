"""What a run prints of its corpus cannot move the cursor, turn lines around or pass for markup."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from residense.callbacks.scores import draw_confusion, print_scores
from residense.cli import main
from residense.messages import listed, printable, to_json

HOSTILE = ["[/x]", "[red]", "\x1b[2J", "\x9b31m", "\u202egnp", "\u2066x", "$\\frac$", "a\x07b"]
ROW = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 1}


def assert_harmless(text: str) -> None:
    assert all(char == "\n" or char.isprintable() for char in text), repr(text)


def test_labels_of_a_corpus_are_printed_escaped(
    tmp_path: Path, fit: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"word{i}\tB-{label}\nother\tO\n" for i, label in enumerate(HOSTILE))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.conll").write_text(f"{rows}\n" * 5, encoding="utf-8")
    run = tmp_path / "run"
    assert fit(f"--data.path={tmp_path}", f"--run_dir={run}") == 0
    said = capfd.readouterr()
    assert_harmless(said.out)
    assert_harmless(said.err)
    assert "[/x]" in said.out and "\\x1b[2J" in said.out and "\\u202egnp" in said.out
    text = (run / "test.json").read_text(encoding="utf-8")
    assert_harmless(text)
    assert set(json.loads(text)["types"]) == set(HOSTILE)
    (tmp_path / "other.conll").write_text("a\tB-\x1bnew\nb\tB-\u202e\n")
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    assert main(["test", best, f"--data.path={tmp_path / 'other.conll'}"]) == 2
    assert_harmless(capfd.readouterr().err)
    assert main(["predict", best, "--data.text=\x9b31m \u202eword0"]) == 0
    out = capfd.readouterr().out
    assert_harmless(out)
    assert json.loads(out)["text"] == "\x9b31m \u202eword0"


def test_a_table_shows_labels_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores({"types": dict.fromkeys(HOSTILE, ROW)}, {})
    out = capsys.readouterr().out
    assert_harmless(out)
    assert all(printable(label) in out for label in HOSTILE)


def test_a_confusion_matrix_has_labels_and_no_formulas() -> None:
    size = len(HOSTILE)
    confusion = [[1] * size] * size
    assert draw_confusion({"confusion": confusion, "rows": HOSTILE, "columns": HOSTILE}).startswith(
        b"\x89PNG"
    )


def test_scores_are_kept_before_they_are_printed(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("residense.callbacks.report.print_scores", broken)
    main(["test", f"--ckpt_path={checkpoint}", f"--run_dir={tmp_path}"])
    assert json.loads((tmp_path / "test.json").read_text())["f1"] > 0


def test_json_reads_back_as_what_it_was() -> None:
    value = {"\u202e": ["\x9b", "\u2028", 'a"\\\n', "纽约 👍🏽"]}
    assert json.loads(to_json(value)) == value
    assert_harmless(to_json(value))
    assert "纽约 👍🏽" in to_json(value)


def test_names_are_listed_up_to_a_few() -> None:
    assert (
        listed(["a\nb", "x" * 50, *"cdefghijkl"])
        == f"a\\nb, {'x' * 37}..., c, d, e, f, g, h, i, j, ..."
    )
