"""Find the files of a corpus: their names say the split."""

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
SPLITS = {
    "train": "train",
    "dev": "validation",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_SIZED = re.compile(r"(train)[0-9]+[km]?")


def find_splits(path: Path, kind: Kind = "tags", pattern: str | None = None) -> dict[str, Path]:
    """Return the file or folder of each split: "train", "validation" and "test", if there is one.

    The split of a file is the first part of its name, separated by "-", "_" or ".", that says train, dev, valid,
    validation, val or test. A size may follow train, such as train10k, where no file is named train. A single file,
    given or found, is "train". For texts, a folder of class folders is "train" too, or a split if it is named so.

    Args:
        path: A folder with at most one file or folder for each split, or one file.
        kind: What the corpus holds. Its files have the suffixes in `SUFFIXES`, before .gz if they are packed.
        pattern: Glob that the file names in the folder must match instead, such as "*.slots.conll".

    Raises:
        CorpusError: There is no file, or more than one for a split.
    """
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise CorpusError(path, None, "no such file or folder", None, "check `--data.path`")
    present = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    files = [entry for entry in present if entry.is_file()]
    chosen = [file for file in files if _selected(file.name, kind, pattern)]
    found = _by_split(chosen)
    folders: dict[str, list[Path]] = {}
    if kind == "texts" and pattern is None:
        folders = _by_split([entry for entry in present if class_folders(entry)])
        if len(class_folders(path)) > 1:
            folders = {"train": [path]}
    if not found and not folders and len(chosen) == 1:
        found = {"train": chosen}
    if not found and not folders:
        raise _nothing(path, pattern, present, bool(_by_split(files)))
    for split in {**found, **folders}:
        candidates = found.get(split, []) + folders.get(split, [])
        if len(candidates) > 1 or (found and folders):
            raise _ambiguous(path, split, candidates)
    return {split: candidates[0] for split, candidates in (found or folders).items()}


def class_folders(path: Path) -> dict[str, list[Path]]:
    """Return the texts of each class folder in a folder: the files CLASS/*.txt, sorted, without hidden ones.

    Folders named like a split are no classes; neither is "unsup", where the IMDb corpus has texts without labels.
    """
    classes = {}
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        named = folder.name.startswith(".") or folder.name.lower() in {*SPLITS, "unsup"}
        if folder.is_dir() and not named:
            texts = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".txt"]
            classes[folder.name] = [file for file in texts if not file.name.startswith(".")]
    return {name: texts for name, texts in classes.items() if texts}


def _selected(name: str, kind: Kind, pattern: str | None) -> bool:
    if pattern is not None:
        return fnmatch.fnmatch(name, pattern)
    stem, _, suffix = name.lower().removesuffix(".gz").rpartition(".")
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


def _ambiguous(path: Path, split: str, candidates: Sequence[Path]) -> CorpusError:
    names = ", ".join(file.name for file in candidates)
    wrong = f"more than one file or folder for the split {split}: {names}"
    patterns = sorted({"*." + file.name.partition(".")[2] for file in candidates if file.is_file()})
    such = f" (such as {' or '.join(patterns)})" if len(patterns) > 1 else ""
    fix = f"select with `--data.files`{such}, or give `--data.path` one file"
    return CorpusError(path, None, wrong, None, fix)


def _nothing(path: Path, pattern: str | None, present: Sequence[Path], other: bool) -> CorpusError:
    names = [entry.name + "/" * entry.is_dir() for entry in present]
    wrong = f"no {pattern or 'train, dev or test file'} here, only {listed(names) or 'nothing'}"
    fix = "name files train, dev and test, select with `--data.files`, or give `--data.path` a file"
    if pattern is None and other:
        wrong += ": no suffix of such a corpus"
        fix = "dense_ner.yaml and similar configs read tags, dense_cls.yaml reads texts"
    return CorpusError(path, None, wrong, None, fix)
