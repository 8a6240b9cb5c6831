"""Find the file of each split of a corpus by its name."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from residense.data.readers.file import CorpusError, Kind
from residense.messages import listed

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "tags": ("conll", "conllu", "txt", "tsv", "bio", "jsonl", "parquet"),
    "texts": ("csv", "tsv", "txt", "label", "jsonl", "parquet"),
}
SPLITS = {"train": "train", "test": "test"}
SPLITS |= dict.fromkeys(("dev", "valid", "validation", "val"), "validation")
_SIZED = re.compile(r"(train)[0-9]+[km]?")


def find_splits(path: Path, kind: Kind = "tags", pattern: str | None = None) -> dict[str, Path]:
    """Return the file or folder of each split: "train", "validation" and "test", if there is one.

    The split of a file is the first part of its name, separated by "-", "_" or ".", that is train,
    dev, valid, validation, val or test. A size may follow train, such as train10k, if no file is
    named train. A single file is "train". A folder of class folders is a split by its name, and
    "train" if it is `path` itself.

    Args:
        path: A folder with at most one file or folder for each split, or one file.
        kind: Content of the corpus. Its files have the suffixes in `SUFFIXES`, and may end in .gz.
        pattern: Glob that the file names must match instead, such as "*.slots.conll".

    Raises:
        CorpusError: There is no file, or more than one for a split.
    """
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise CorpusError(path, None, "no such file or folder", None, "check `--data.path`")
    present = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    chosen = [entry for entry in present if _is_selected(entry, kind, pattern)]
    found = _by_split(chosen)
    if not found and kind == "texts" and pattern is None and len(class_folders(path)) > 1:
        found = {"train": [path]}
    if not found and len(chosen) == 1:
        found = {"train": chosen}
    if not found:
        names = listed(entry.name + "/" * entry.is_dir() for entry in present) or "nothing"
        wrong = f"no {pattern or 'train, dev or test file'} here, only {names}"
        suffixes = f"files of {kind} are named train, dev and test .{', .'.join(SUFFIXES[kind])}"
        fix = f"{suffixes}; select others with `--data.files`, or give `--data.path` a file"
        raise CorpusError(path, None, wrong, None, fix)
    for split, candidates in found.items():
        if len(candidates) > 1:
            names = ", ".join(file.name for file in candidates)
            wrong = f"more than one file or folder for the split {split}: {names}"
            such = "*." + candidates[-1].name.partition(".")[2]
            fix = f"select with `--data.files`, such as '{such}', or give `--data.path` one file"
            raise CorpusError(path, None, wrong, None, fix)
    return {split: candidates[0] for split, candidates in found.items()}


def class_folders(path: Path) -> dict[str, list[Path]]:
    """Return the files CLASS/*.txt of each class folder, sorted, without hidden ones.

    Folders named like a split are not classes; neither is "unsup", where the IMDb corpus has texts
    without labels.
    """
    classes = {}
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        if not folder.name.startswith(".") and folder.name.lower() not in {*SPLITS, "unsup"}:
            texts = [text for text in sorted(folder.glob("*")) if text.suffix.lower() == ".txt"]
            classes[folder.name] = [text for text in texts if not text.name.startswith(".")]
    return {name: texts for name, texts in classes.items() if texts}


def _is_selected(entry: Path, kind: Kind, pattern: str | None) -> bool:
    if entry.is_dir():
        return kind == "texts" and pattern is None and bool(class_folders(entry))
    if pattern is not None:
        return fnmatch.fnmatch(entry.name, pattern)
    stem, _, suffix = entry.name.lower().removesuffix(".gz").rpartition(".")
    return bool(stem) and suffix in SUFFIXES[kind]


def _by_split(entries: Sequence[Path]) -> dict[str, list[Path]]:
    found = {entry: _split_of(entry.name) for entry in entries}
    if "train" not in found.values():
        found = {entry: _split_of(_SIZED.sub(r"\1", entry.name.lower())) for entry in entries}
    order = [split for split in ("train", "validation", "test") if split in found.values()]
    return {split: [entry for entry in entries if found[entry] == split] for split in order}


def _split_of(name: str) -> str | None:
    parts = re.split(r"[-_.]", name.lower())
    return next((SPLITS[part] for part in parts if part in SPLITS), None)
