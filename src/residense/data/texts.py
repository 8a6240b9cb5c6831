"""Reading text classification corpora: files of texts and labels, class folders, and what `datasets` opens."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from residense.data.columns import Column
from residense.data.files import (
    by_split,
    find_class_splits,
    find_classes,
    find_splits,
    only,
    read_text,
    select,
)
from residense.data.hub import load_splits
from residense.data.sentences import CorpusError, Faults
from residense.data.texts_examples import (
    Example,
    examples_of,
    has_text,
    refuse_tokens,
    without_swallowed,
)
from residense.data.texts_layout import Layout, Rules, find_layout, no_text
from residense.data.texts_rows import Grid, data_set, json_lines, lines_of, table
from residense.messages import listed

_SUFFIXES = re.compile(
    r".+\.(?:(?P<kind>csv|tsv|txt|label|jsonl)(?:\.gz)?|(?P<parquet>parquet))", re.IGNORECASE
)
FEW_LABELS = 100  # may differ from text to text
MOST_LABELS = 0.4  # of a text
LARGEST_TABLE = 10**9  # bytes of a table of texts by labels


class Texts(NamedTuple):
    """A file of texts, in order, and how it was understood.

    Args:
        path: The file or folder.
        texts: The texts, as they are written.
        labels: A label for each text, several or none where a separator of labels is given; empty if unlabelled.
        lines: 1-based line, or row of a data set or file of a class folder, where each begins.
        notes: One line for each thing inferred.
        repairs: What was repaired, and how often.
        rules: How the other splits of the corpus are read; None for class folders.
    """

    path: Path
    texts: list[str]
    labels: list[tuple[str, ...]]
    lines: list[int]
    notes: list[str]
    repairs: dict[str, int]
    rules: Rules | None = None


def find_texts(path: Path, pattern: str | None = None) -> dict[str, Path]:
    """Return the files or folders of a corpus by split: "train", "validation", "test", as far as there are any.

    These are files whose names say their split, folders such as train and test that hold class folders, or one
    folder of class folders or one file, which are "train". A class folder holds a text in each of its .txt files.

    Args:
        path: A folder with at most one file or folder for each split, a folder of class folders, or one file.
        pattern: Glob that the file names in the folder must match; without it, files with the suffix .csv, .tsv,
            .txt, .label or .jsonl (also with .gz) or .parquet count.

    Raises:
        CorpusError: There is nothing, or more than one file or folder for a split.
    """
    if pattern is not None or not path.is_dir():
        return find_splits(path, pattern, _SUFFIXES)
    folders = find_class_splits(path)
    if not folders and len(find_classes(path)) < 2:
        return find_splits(path, None, _SUFFIXES)
    if files := by_split(select(path, None, _SUFFIXES)):
        names = ", ".join(file.name for candidates in files.values() for file in candidates)
        wrong = f"class folders as well as files that are named like splits: {names}"
        raise CorpusError(
            path,
            None,
            wrong,
            fix="select the files with `--data.files`, or move one or the other away",
        )
    return only(path, folders or {"train": [path]})


def read_texts(
    path: Path,
    text_column: Column = None,
    label_column: Column = None,
    encoding: str = "utf-8",
    repair: bool = False,
    labelled: bool = True,
    label_separator: str | None = None,
    like: Rules | None = None,
) -> Texts:
    """Return the texts of one file, whose name says its format, or of a folder of class folders.

    Args:
        path: File with the suffix .csv, .tsv, .txt or .label (a label, a space and a text on each line, or
            columns separated by TAB) or .jsonl, also with .gz, or .parquet; or a folder.
        text_column: Column of the texts, a 0-based position (negative from the right), or its name in the header
            or among the keys; None to infer it.
        label_column: The same for the labels.
        encoding: Encoding of the file.
        repair: Repair or drop what is malformed, and count it, instead of raising.
        labelled: Whether there must be labels; they are not read otherwise.
        label_separator: What separates the labels of a text that may have several or none.
        like: How another split of the corpus was read; this one is read alike if its name has the same suffix.

    Raises:
        CorpusError: Something is malformed or ambiguous, or does not fit the rules.
    """
    if path.is_dir():
        texts = read_class_folder(path, encoding, repair)
        return texts if labelled else texts._replace(labels=[()] * len(texts.texts))
    match = _SUFFIXES.fullmatch(path.name)
    if match is None:
        fix = "rename it to .csv, .tsv, .txt, .label, .jsonl or .parquet, whichever it is"
        raise CorpusError(path, None, "suffix of no known format for texts", fix=fix)
    faults, kind = Faults(path, repair), (match["kind"] or match["parquet"]).lower()
    like = like if like is not None and like.kind == kind else None
    if kind == "parquet":
        grid = data_set(path, load_splits(str(path))["train"])
    else:
        whole = not labelled and text_column is None and label_column is None
        grid = _grid(path, kind, _text(faults, path, encoding), whole, like)
    layout = find_layout(path, grid, text_column, label_column, labelled, like)
    return _collect(faults, kind, grid, layout, label_separator, like)


def read_splits(
    path: Path,
    pattern: str | None,
    text_column: Column,
    label_column: Column,
    encoding: str,
    repair: bool,
    label_separator: str | None,
) -> dict[str, Texts]:
    """Return the texts of all splits of `find_texts`, read by the rules that are found in the first.

    The arguments are those of `find_texts` and `read_texts`.
    """
    readings, like = {}, None
    for name, file in find_texts(path, pattern).items():
        readings[name] = read_texts(
            file, text_column, label_column, encoding, repair, True, label_separator, like
        )
        like = readings[name].rules
    _refuse_many_labels(readings)
    return readings


def _refuse_many_labels(readings: dict[str, Texts]) -> None:
    """Raise where labels hardly repeat: another column was meant, and a table of texts by labels would be huge."""
    labels = {label for reading in readings.values() for given in reading.labels for label in given}
    texts = sum(len(reading.texts) for reading in readings.values())
    if len(labels) > max(FEW_LABELS, MOST_LABELS * texts) or len(labels) * texts > LARGEST_TABLE:
        first = next(iter(readings.values()))
        column = f" in column {listed([str(first.rules.label)])}" if first.rules else ""
        wrong = (
            f"{len(labels):,} different labels{column} for {texts:,} texts, too many to be classes"
        )
        raise CorpusError(
            first.path, None, wrong, fix="choose another column with `--data.label_column`"
        )


def read_class_folder(path: Path, encoding: str = "utf-8", repair: bool = False) -> Texts:
    """Return the texts of a folder of class folders, path/CLASS/*.txt, each of which is a label.

    Args:
        path: The folder; classes and files are sorted, hidden ones left out.
        encoding: Encoding of the files.
        repair: Replace or drop what is malformed, and count it, instead of raising.

    Raises:
        CorpusError: A file is malformed, or there is none.
    """
    repairs: Counter[str] = Counter()
    examples = []
    classes = find_classes(path) if path.is_dir() else {}
    if not classes:
        raise CorpusError(
            path, None, "no class folder with .txt files in this folder", fix="check `--data.path`"
        )
    for label, files in classes.items():
        for file in files:
            faults = Faults(file, repair, repairs)
            text = _text(faults, file, encoding).rstrip("\r\n")
            if has_text(faults, 1, text):
                examples.append(Example(text, (label,), len(examples) + 1))
    if not examples:
        raise no_text(path)
    return _texts(path, examples, f"a class in each of {len(classes)} folders", repairs)


def read_text_dataset(
    name_or_path: str,
    text_column: Column = None,
    label_column: Column = None,
    labelled: bool = True,
    label_separator: str | None = None,
    repair: bool = False,
) -> dict[str, Texts]:
    """Return the splits of a parquet file, which is "train", or of a data set on the Hugging Face hub.

    Args:
        name_or_path: Path ending in .parquet, or hub id such as "user/corpus".
        text_column: Column of the texts, None to infer it.
        label_column: The same for the labels; numbers take their names from its ClassLabel feature.
        labelled: Whether there must be labels; they are not read otherwise.
        label_separator: What separates the labels of a text that may have several or none; lists need one, any.
        repair: Drop what is malformed, and count it, instead of raising.

    Raises:
        CorpusError: Something is malformed or ambiguous, or cannot be loaded.
    """
    path = Path(name_or_path)
    read: dict[str, Texts] = {}
    like = None
    for split, data in load_splits(name_or_path).items():
        grid = data_set(path, data)
        layout = find_layout(path, grid, text_column, label_column, labelled, like)
        read[split] = _collect(Faults(path, repair), "", grid, layout, label_separator, like)
        like = read[split].rules
    if labelled:
        _refuse_many_labels(read)
    return read


def _text(faults: Faults, path: Path, encoding: str) -> str:
    text, replaced = read_text(path, encoding, faults.repair)
    if replaced:
        faults.repairs["undecodable bytes read as U+FFFD"] += replaced
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        fix = "remove it, or name the encoding with `--data.encoding` if it is another one, such as utf-16"
        raise CorpusError(path, line, "NUL character", text.split("\n")[line - 1], fix)
    return text


def _grid(path: Path, kind: str, text: str, whole: bool, like: Rules | None) -> Grid:
    separator, quotes = (like.separator, like.quotes) if like else ("", None)
    if kind == "jsonl":
        return json_lines(path, text)
    if kind in ("csv", "tsv"):
        return table(path, text, separator or ("\t,;" if kind == "tsv" else ",\t;"), quotes)
    return lines_of(path, text, whole, separator, quotes)


def _collect(
    faults: Faults,
    kind: str,
    grid: Grid,
    layout: Layout,
    label_separator: str | None,
    like: Rules | None,
) -> Texts:
    examples = list(examples_of(faults, layout, label_separator))
    if grid.separator and layout.label is not None:
        examples = list(
            without_swallowed(faults, examples, grid.separator, layout.label > layout.text)
        )
    if not examples:
        raise no_text(faults.path)
    if grid.separator in ("\t", " "):
        refuse_tokens(faults.path, examples)
    quotes = grid.quotes if like is None or like.quotes is None else like.quotes
    columns = (layout.width, layout.name(layout.text), layout.name(layout.label))
    rules = Rules(kind, grid.separator, quotes, bool(layout.header), *columns)
    texts = _texts(faults.path, examples, f"{layout.kind}, {layout.note}", faults.repairs)
    return texts._replace(rules=rules)


def _texts(path: Path, examples: list[Example], note: str, repairs: Counter[str]) -> Texts:
    labels = sorted({label for example in examples for label in example.labels})
    found = f", {len(labels)} labels: {listed(labels)}" if labels else ""
    notes = [f"{path.name}: {note}, {len(examples)} texts{found}"]
    texts, labels, lines = (list(column) for column in zip(*examples, strict=True))
    return Texts(path, texts, labels, lines, notes, dict(repairs))
