"""Trained models in Python: the same predictions as the command line, and vectors of texts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import residense
from residense.cli import main
from residense.errors import UsageError

TEXTS = ["Anna Miller lives in Oslo.", "Call 030 1234567 on 3 May 2021, please.", "Nothing here."]


def test_a_loaded_model_predicts_what_the_command_predicts(checkpoint: str, tmp_path: Path) -> None:
    options = [f"--data.text={text}" for text in TEXTS]
    output = tmp_path / "predictions.jsonl"
    assert main(["predict", f"--ckpt_path={checkpoint}", f"--output={output}", *options]) == 0
    expected = [json.loads(line) for line in output.read_text().splitlines()]
    model = residense.load(checkpoint)
    assert model.predict(TEXTS) == expected
    assert model.predict(TEXTS[1:]) == expected[1:]


def test_entities_have_offsets_and_probabilities(checkpoint: str) -> None:
    for text, found in zip(TEXTS, residense.load(checkpoint).predict(TEXTS), strict=True):
        assert found["text"] == text
        for entity in found["entities"]:
            assert text[entity["start"] : entity["end"]] == entity["text"]
            assert 0 <= entity["probability"] <= 1


def test_texts_are_encoded_each_by_itself(checkpoint: str) -> None:
    model = residense.load(checkpoint)
    vectors = model.encode(TEXTS)
    assert vectors.shape[0] == len(TEXTS) and vectors.isfinite().all()
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(model.encode([text])[0], vectors[i], rtol=1e-4, atol=1e-5)
    long = " ".join(["Anna Miller lives in Oslo."] * 200)  # more than the longest sentence
    assert model.encode([long]).isfinite().all()


def test_a_classifier_predicts_and_encodes(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--config=dense_cls.yaml", "--run_dir=run") == 0
    model = residense.load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    found = model.predict(TEXTS)
    assert [one["text"] for one in found] == TEXTS
    assert all(one["label"] in one["probabilities"] for one in found)
    assert model.encode(TEXTS).shape[0] == len(TEXTS)


def test_loading_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"x\.ckpt"):
        residense.load(tmp_path / "x.ckpt")


def test_a_module_of_the_user_is_imported_only_if_it_is_trusted(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    name = "my_trusted_connections"
    (tmp_path / f"{name}.py").write_text("import residense\n\nclass Own(residense.Residual): ...\n")
    assert fit(f"--model.encoder.connection={name}.Own", "--run_dir=run") == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    with pytest.raises(UsageError, match=f"--trust {name}"):
        residense.load(checkpoint)
    assert len(residense.load(checkpoint, trust=[name]).predict(TEXTS)) == len(TEXTS)


def test_no_texts_are_not_read_from_standard_input_and_one_text_is_no_list(checkpoint: str) -> None:
    model = residense.load(checkpoint)
    assert model.predict([]) == []
    assert len(model.encode([])) == 0
    with pytest.raises(UsageError, match="texts are a list"):
        model.predict(TEXTS[0])
