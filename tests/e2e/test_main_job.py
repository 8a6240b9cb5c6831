"""The main job as a whole, on the embedded corpora: hard enough to be worth a model, and learnt by one."""

import json
from pathlib import Path

import pytest

from residense.cli import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_embedded_corpus_is_learnt_but_not_looked_up(language: str, tmp_path: Path) -> None:
    options = [f"--run_dir={tmp_path}", "--logger=none", f"--data.synthetic.language={language}"]
    assert main(["fit", "--config=dense_ner.yaml", *options, "--trainer.max_epochs=6"]) == 0
    results = json.loads((tmp_path / "test.json").read_text())
    assert 0.70 < results["f1"] < 0.97
    assert results["f1"] - results["compared"]["dictionary lookup"]["f1"] > 0.20
    assert results["compared"]["unseen in training"]["f1"] > 0.60
