"""The files of a corpus are found by their names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from residense.data.readers.file import CorpusError
from residense.data.readers.splits import find_splits

Write = Callable[[str, str | bytes], Path]

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_corpora = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the corpora in ../shared/data"
)


def texts(path: Path, pattern: str | None = None) -> dict[str, Path]:
    return find_splits(path, "texts", pattern)


@needs_corpora
def test_slots_beside_intents_are_ambiguous_without_a_pattern() -> None:
    message = (
        r"train\.intent\.tsv, train\.slots\.conll; .*`--data\.files`, such as '\*\.slots\.conll'"
    )
    with pytest.raises(CorpusError, match=message):
        find_splits(SHARED / "atis")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.conll", "dev.conll", "test.conll"], ["train.conll", "dev.conll", "test.conll"]),
        (["TRAIN.txt", "Valid.TXT"], ["TRAIN.txt", "Valid.TXT", None]),
        (
            ["eng.train.bio", "eng-val.bio", "x_test.bio.gz"],
            ["eng.train.bio", "eng-val.bio", "x_test.bio.gz"],
        ),
        (
            ["train-00000-of-00001.parquet", "README.md"],
            ["train-00000-of-00001.parquet", None, None],
        ),
        (["all.jsonl"], ["all.jsonl", None, None]),
        (["test.tsv", "notes.txt", ".train.tsv", "training.tsv"], [None, None, "test.tsv"]),
    ],
)
def test_splits_are_found_by_name(
    write: Write, tmp_path: Path, names: list[str], expected: list[str | None]
) -> None:
    for name in names:
        write(name, "")
    found = find_splits(tmp_path)
    assert [
        found[s].name if s in found else None for s in ("train", "validation", "test")
    ] == expected


def test_a_pattern_selects_among_the_files(write: Write) -> None:
    write("train.a.tsv", "")
    path = write("train.b.odd", "")
    assert find_splits(path.parent, "tags", "*.b.*") == {"train": path}
    with pytest.raises(CorpusError, match=r"no \*\.c here, only train\.a\.tsv, train\.b\.odd"):
        find_splits(path.parent, "tags", "*.c")


def test_two_files_for_a_split_are_listed(write: Write) -> None:
    folder = write("dev.conll", "").parent
    write("valid.conll", "")
    with pytest.raises(
        CorpusError,
        match=r"the split validation: dev\.conll, valid\.conll; .* or give `--data\.path` one file",
    ):
        find_splits(folder)


def test_a_folder_without_splits_lists_what_is_there(write: Write) -> None:
    folder = write("a.txt", "").parent
    write("b.txt", "")
    (folder / "sub").mkdir()
    with pytest.raises(
        CorpusError, match=r"no train, dev or test file here, only a\.txt, b\.txt, sub/"
    ):
        find_splits(folder)
    with pytest.raises(CorpusError, match="no such file or folder"):
        find_splits(folder / "gone")


@needs_corpora
@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (
            "trec",
            r"train: train\.label, train\.tsv; select with `--data\.files`, such as '\*\.tsv'",
        ),
        (
            "ag-news",
            r"test: test\.official\.csv\.gz, test\.tsv\.gz; .*, such as '\*\.tsv\.gz'",
        ),
    ],
)
def test_twins_are_ambiguous_without_a_pattern(corpus: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        texts(SHARED / corpus)


def test_a_size_behind_train_counts_where_no_file_is_called_train(write: Write) -> None:
    path = write("train10k.tsv", "")
    write("test2.tsv", "")
    assert texts(path.parent) == {"train": path}
    plain = write("train.tsv", "")
    assert texts(path.parent) == {"train": plain}


def test_files_of_other_formats_do_not_count(write: Write) -> None:
    path = write("train.intent.tsv", "")
    write("train.slots.conll", "")
    write("train.bio", "")
    assert texts(path.parent) == {"train": path}
    assert texts(path) == {"train": path}
    assert texts(path.parent, "*.bio") == {"train": path.parent / "train.bio"}
    with pytest.raises(CorpusError, match="no such file or folder"):
        texts(path.parent / "gone")


def test_folders_of_class_folders_are_splits(write: Write, tmp_path: Path) -> None:
    for name in ("train/neg/a", "train/pos/a", "test/neg/a", "train/urls", "vocab"):
        write(f"{name}.txt", "text")
    assert texts(tmp_path) == {"train": tmp_path / "train", "test": tmp_path / "test"}
    assert texts(tmp_path / "train") == {"train": tmp_path / "train"}
    write("test.csv", "")
    with pytest.raises(
        CorpusError, match=r"for the split test: test, test\.csv; select with `--data\.files`"
    ):
        texts(tmp_path)
    assert texts(tmp_path, "*.csv") == {"test": tmp_path / "test.csv"}
