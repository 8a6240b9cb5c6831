"""Corpora that are given as lists or data sets instead of files."""

from pathlib import Path
from typing import Any

import pytest

from residense.data.classification import ClassificationDataModule
from residense.data.readers.file import CorpusError
from residense.data.tagging import TaggingDataModule
from residense.tags import Span, spans

SENTENCES = [(["Anna", "lives", "in", "Oslo"], ["B-PER", "O", "O", "B-LOC"]), (["Hi"], ["O"])] * 9
TEXTS = [("a good film", "pos"), ("a bad one", "neg")] * 9


def test_lists_of_tokens_and_tags_are_a_corpus() -> None:
    data = TaggingDataModule({"train": SENTENCES, "dev": SENTENCES[:2]}, scheme="IOB2")
    data.prepare_data()
    data.setup("fit")
    assert data.splits["train"].num_documents == 18
    corpus = data.splits["validation"]
    pairs = zip(corpus.document_tokens(), corpus.document_tags(), strict=True)
    assert [*pairs] == SENTENCES[:2]


def test_tuples_are_as_good_as_lists() -> None:
    rows = [(tuple(tokens), tuple(tags)) for tokens, tags in SENTENCES]
    data = TaggingDataModule({"train": rows})
    data.setup("fit")
    assert sum(corpus.num_documents for corpus in data.splits.values()) == 18


def test_texts_with_spans_are_a_corpus() -> None:
    rows = [("Anna lives in Oslo", ((0, 4, "PER"), (14, 18, "LOC")))] * 9
    data = TaggingDataModule({"train": rows})
    loaded = data.load(None)
    expected = [Span(0, 1, "PER"), Span(3, 4, "LOC")]
    assert spans(loaded.splits["train"].document_tags()[0]) == expected


def test_lists_of_texts_and_labels_are_a_corpus() -> None:
    data = ClassificationDataModule({"train": TEXTS, "test": TEXTS[:2]})
    data.setup("fit")
    assert data.splits["test"].raw == ["a good film", "a bad one"]
    assert data.splits["test"].document_classes() == [["pos"], ["neg"]]


def test_data_sets_are_a_corpus() -> None:
    datasets = pytest.importorskip("datasets")
    rows: dict[str, Any] = {"sentence": [text for text, _ in TEXTS], "label": [0, 1] * 9}
    kind = datasets.ClassLabel(names=["pos", "neg"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": kind})
    data_set = datasets.Dataset.from_dict(rows, features)
    data = ClassificationDataModule(datasets.DatasetDict(train=data_set, validation=data_set))
    data.setup("fit")
    assert data.splits["train"].document_classes()[:2] == [["pos"], ["neg"]]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ({"training": SENTENCES}, r"data\.path: no known split, read \['training'\]"),
        ({"train": [(["a"], ["O", "O"])]}, r"data\.path:1: 1 tokens but 2 tags"),
        ({"train": []}, r"data\.path: no examples"),
    ],
)
def test_faults_in_lists_are_reported_with_their_row(path: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        TaggingDataModule(path).load(None)


def test_the_cache_is_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDENSE_CACHE", str(tmp_path))
    TaggingDataModule({"train": SENTENCES}).load(None)
    assert not [*tmp_path.iterdir()]
