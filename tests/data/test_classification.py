"""Corpora of texts with classes: units, what is cut off, splits, and the corpora that are used here."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residense.data.classification import ClassificationDataModule
from residense.data.slots import SlotsDataModule
from residense.data.units import Units, kept, subword_tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_corpora = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared corpora")


def module(path: Path | str | None, **options: Any) -> ClassificationDataModule:
    made = ClassificationDataModule(path=None if path is None else str(path), **options)
    made.prepare_data()
    made.setup("fit")
    return made


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "text", "tokens"),
    [
        ("word", "It isn't bad, 你好!", ["It", "is", "n't", "bad", ",", "你", "好", "!"]),
        ("char", "a  b\tc", ["a", " ", "b", " ", "c"]),
    ],
)
def test_units(unit: str, text: str, tokens: list[str]) -> None:
    found, places = Units(unit).cut(text)
    assert found == tokens
    assert [text[a:b].strip() for a, b in places] == [token.strip() for token in tokens]


def test_subwords_are_trained_and_kept(tmp_path: Path) -> None:
    texts = ["the lowest tower", "lower towers", "the newest and the lowest"] * 20
    state = subword_tokenizer(texts, 120)
    assert subword_tokenizer(texts, 120) == state
    tokens, places = Units("subword", state).cut("The lowest  newer")
    assert len(tokens) > 3 and "".join(tokens).replace("▁", "") == "thelowestnewer"
    assert all(0 <= a <= b <= len("The lowest  newer") for a, b in places)
    (tmp_path / "tokenizer.json").write_text(state)
    assert subword_tokenizer([], str(tmp_path / "tokenizer.json")) == state


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "at least 100 subwords are needed; got 5"),
        ("no.json", "no file no.json"),
        ("bad.json", "is not a tokenizer.json"),
    ],
)
def test_wrong_subwords(
    source: int | str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        subword_tokenizer(["a"], source)


def test_what_is_kept_of_a_long_text() -> None:
    assert kept(5, 5, "head") == [0, 1, 2, 3, 4]
    assert kept(9, 4, "head") == [0, 1, 2, 3]
    assert kept(9, 4, "head+tail") == [0, 6, 7, 8]
    assert kept(9, 1, "head+tail") == [8]


# -- splits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One file of 200 texts in three classes of 150, 40 and 10."""
    labels = ["a"] * 150 + ["b"] * 40 + ["c"] * 10
    rows = "".join(
        f"{label},text {i} of {'many ' * (i % 7)}words\n" for i, label in enumerate(labels)
    )
    (tmp_path / "all.csv").write_text("label,text\n" + rows)
    return tmp_path / "all.csv"


def classes(made: ClassificationDataModule, split: str) -> Counter[str]:
    return Counter(name for row in made.splits[split].document_classes() for name in row)


def test_each_class_is_split_alike(corpus: Path) -> None:
    made = module(corpus)
    assert classes(made, "train") == {"a": 120, "b": 32, "c": 8}
    assert classes(made, "validation") == classes(made, "test") == {"a": 15, "b": 4, "c": 1}
    texts = [text for split in made.splits.values() for text in split.raw]
    assert len(set(texts)) == 200
    assert module(corpus).splits["test"].raw == made.splits["test"].raw
    assert module(corpus, split_seed=1).splits["test"].raw != made.splits["test"].raw


def rows(labels: list[str], path: Path) -> Path:
    path.write_text(
        "label,text\n" + "".join(f"{label},this is text {i}\n" for i, label in enumerate(labels))
    )
    return path


@pytest.mark.parametrize("kind", ["many labels", "small classes"])
def test_rare_classes_are_shared_out(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(20)]
    several = [
        "|".join(sorted(rng.choice(names, rng.integers(2, 6), replace=False))) for _ in range(1000)
    ]
    labels = several if kind == "many labels" else [f"c{i % 30}" for i in range(90)]
    path, options = (
        rows(labels, tmp_path / "all.csv"),
        {"label_separator": "|"} if kind == "many labels" else {},
    )
    sizes = {name: split.num_documents for name, split in module(path, **options).splits.items()}
    assert sum(sizes.values()) == len(labels)
    assert all(0.08 < sizes[name] / len(labels) < 0.12 for name in ("validation", "test"))
    sizes = [
        module(path, folds=10, fold=i, **options).splits["test"].num_documents for i in range(10)
    ]
    assert sum(sizes) == len(labels) and max(sizes) <= 1.3 * min(sizes)


@pytest.mark.parametrize("count", [4, 6, 9, 25])
def test_no_text_is_in_two_splits(count: int, tmp_path: Path) -> None:
    made = module(rows(["ab"[i % 2] for i in range(count)], tmp_path / "all.csv"))
    texts = [text for split in made.splits.values() for text in split.raw]
    assert len(texts) == len(set(texts)) == count and min(map(len, made.splits.values())) >= 1


def test_another_name_is_another_corpus(tmp_path: Path) -> None:
    for label, folder in (("good", tmp_path / "pos"), ("bad", tmp_path / "neg")):
        folder.mkdir()
        for i in range(12):
            (folder / f"{i}.TXT").write_text(f"a {label} thing {i}")
    assert set(classes(module(tmp_path), "train")) == {"pos", "neg"}
    (tmp_path / "pos").rename(tmp_path / "positive")
    assert set(classes(module(tmp_path), "train")) == {"positive", "neg"}


def test_a_class_without_training_texts_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(["a", "b"] * 20, tmp_path / "train.csv")
    rows(["a", "b", "A"] * 5, tmp_path / "test.csv")
    module(tmp_path)
    assert (
        "warning: test has labels that train lacks, which cannot be learned: A (5)"
        in capsys.readouterr().err
    )


def test_folds_of_a_corpus_with_splits_are_refused(tmp_path: Path) -> None:
    rows(["a", "b"] * 20, tmp_path / "test.csv")
    (tmp_path / "notes.md").write_text("alone a file would be the whole corpus")
    rows(["a", "b"] * 20, tmp_path / "dev.csv")
    with pytest.raises(
        ValueError, match=r"splits of its own \(validation, test\): use --data.folds 0"
    ):
        module(tmp_path, folds=3)


def test_folds_cover_all_texts_once(corpus: Path) -> None:
    folds = [module(corpus, folds=5, fold=i) for i in range(5)]
    assert sorted(text for made in folds for text in made.splits["test"].raw) == sorted(
        text for split in folds[0].splits.values() for text in split.raw
    )
    for made, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert classes(made, "test") == {"a": 30, "b": 8, "c": 2}
        assert made.splits["validation"].raw == following.splits["test"].raw


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2}, "data.folds at least 3; got 0 of 2"),
        ({"label_separator": ""}, "label_separator must not be empty"),
        ({"folds": 5, "fold": 5}, "in 0 .. folds - 1"),
        ({"folds": 500}, "too few for 500 folds"),
    ],
)
def test_options_without_sense(options: dict[str, Any], message: str, corpus: Path) -> None:
    with pytest.raises(ValueError, match=message):
        module(corpus, **options)


def test_one_class_is_none(tmp_path: Path) -> None:
    (tmp_path / "all.tsv").write_text("".join(f"some text {i} of words\ta\n" for i in range(40)))
    with pytest.raises(ValueError, match="one class"):
        module(tmp_path / "all.tsv", label_column=1, text_column=0)


def test_any_number_of_labels(tmp_path: Path) -> None:
    rows = [
        ("one text of words", "a#b"),
        ("another text", "b"),
        ("a third one", "a"),
        ("and a fourth", ""),
    ] * 10
    (tmp_path / "all.tsv").write_text(
        "".join(f"{text} {i}\t{label}\n" for i, (text, label) in enumerate(rows))
    )
    made = module(tmp_path / "all.tsv", text_column=0, label_column=1, label_separator="#")
    assert made.vocabulary is not None
    assert made.vocabulary.classes == ["a", "b"] and made.vocabulary.multi_label
    assert {tuple(row) for row in made.splits["train"].document_classes()} == {
        ("a", "b"),
        ("b",),
        ("a",),
        (),
    }


def test_long_texts_are_cut_and_counted(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = module(corpus, max_length=6)
    assert max(split.lengths.max() for split in made.splits.values()) == 6
    long = np.mean([i % 7 > 2 for i in range(200)])
    note = f"train: {100 * long:.1f} % of the texts are cut to 6 tokens (head is kept)"
    assert note in capsys.readouterr().err
    assert made.splits["train"].raw[-1].endswith("words")  # the text itself is whole


# -- corpora -----------------------------------------------------------------------------------------------------------

CORPORA: dict[str, tuple[dict[str, Any], dict[str, int], int]] = {
    "trec": (
        {"files": "*.tsv", "label_column": 0, "text_column": 2},
        {"train": 5452, "test": 500},
        6,
    ),
    "sst2": ({"label_column": 1}, {"train": 6920, "validation": 872, "test": 1821}, 2),
    "sst5": ({}, {"train": 8544, "validation": 1101, "test": 2210}, 5),
    "banking77": ({}, {"train": 10003, "test": 3080}, 77),
    "ag-news": (
        {"files": "*[k,t].tsv.gz", "label_column": 1},
        {"train": 10001, "test": 7600},
        4,
    ),
    "chnsenticorp-htl": ({"repair": True}, {"train": 7765}, 2),
}


LARGE = ("ag-news", "banking77", "chnsenticorp-htl", "sst2", "sst5")


@needs_corpora
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in CORPORA]
)
def test_counts_are_those_of_the_corpus(name: str) -> None:
    options, expected, num_classes = CORPORA[name]
    made = ClassificationDataModule(path=str(SHARED / name), **options)
    loaded = made.load(None)
    assert {split: corpus.num_documents for split, corpus in loaded.splits.items()} == expected
    assert (
        len({label for corpus in loaded.splits.values() for label in corpus.classes}) == num_classes
    )


@needs_corpora
@pytest.mark.parametrize(
    ("name", "train", "num_classes"), [("atis", 4478, 21), ("snips", 13084, 7)]
)
def test_slots_and_intents(name: str, train: int, num_classes: int) -> None:
    loaded = SlotsDataModule(path=str(SHARED / name)).load(None)
    corpus = loaded.splits["train"]
    assert corpus.num_documents == train == len(corpus.targets)
    assert len(corpus.classes) == num_classes and (corpus.targets.sum(1) == 1).all()
    assert loaded.scheme == "IOBES"


def test_files_with_other_sentences_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.slots.conll").write_text(
        "fly\tO\nto\tO\nRome\tB-city\n\nthanks\tO\na\tO\nlot\tO\n"
    )
    intents = tmp_path / "train.intent.tsv"
    intents.write_text("flight\tfly to Rome\nthanks\tthanks a million\n")
    with pytest.raises(
        ValueError,
        match=r"train.intent.tsv:2: not the sentence of the file with slots, 'thanks a lot'",
    ):
        SlotsDataModule(path=str(tmp_path)).load(None)
    intents.write_text("flight\tfly to Rome\nthanks\tthanks a lot\nflight\tfly to Rome\n")
    with pytest.raises(ValueError, match="3 intents for 2 sentences"):
        SlotsDataModule(path=str(tmp_path)).load(None)


def test_a_vocabulary_keeps_its_unit_and_classes(corpus: Path) -> None:
    made = module(corpus, unit="subword", subwords=150)
    again = ClassificationDataModule(path=str(corpus))
    again.vocabulary = made.vocabulary
    again.setup("fit")
    assert again.splits["test"].forms == made.splits["test"].forms
    assert made.vocabulary is not None and made.vocabulary.unit == "subword"
    assert made.vocabulary.class_counts == [120, 32, 8]
