"""Find the files of a corpus: their names say the split."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from residense.data.readers.file import CorpusError, Kind

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
        raise CorpusError(path, None, "no such file or folder", fix="check `--data.path`")
    present = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    files = [entry for entry in present if entry.is_file()]
    chosen = [file for file in files if _selected(file.name, pattern, SUFFIXES[kind])]
    found = _by_split(chosen)
    if pattern is None and kind == "texts":
        folders = _by_split([entry for entry in present if class_folders(entry)])
        if folders or len(class_folders(path)) > 1:
            _refuse_files(path, found)
            return _only(path, folders or {"train": [path]})
    if not found and len(chosen) == 1:
        return {"train": chosen[0]}
    if not found:
        raise _nothing(path, pattern, present, bool(_by_split(files)))
    return _only(path, found)


def class_folders(path: Path) -> dict[str, list[Path]]:
    """Return the texts of each class folder in a folder: the files CLASS/*.txt, sorted, without hidden ones.

    Folders named like a split are no classes; neither is "unsup", where the IMDb corpus has texts without labels.
    """
    classes = {}
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        if folder.name.startswith(".") or folder.name.lower() in {*SPLITS, "unsup"}:
            continue
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        texts = [f for f in files if f.suffix.lower() == ".txt" and not f.name.startswith(".")]
        if texts:
            classes[folder.name] = texts
    return classes


def _selected(name: str, pattern: str | None, suffixes: Sequence[str]) -> bool:
    if pattern is not None:
        return fnmatch.fnmatch(name, pattern)
    stem, _, suffix = name.lower().removesuffix(".gz").rpartition(".")
    return bool(stem) and suffix in suffixes


def _by_split(entries: Sequence[Path]) -> dict[str, list[Path]]:
    found = {entry: _split_of(entry.name) for entry in entries}
    if "train" not in found.values():
        found = {entry: _split_of(_SIZED.sub(r"\1", entry.name.lower())) for entry in entries}
    order = [split for split in ("train", "validation", "test") if split in found.values()]
    return {split: [entry for entry in entries if found[entry] == split] for split in order}


def _split_of(name: str) -> str | None:
    parts = re.split(r"[-_.]", name.lower())
    return next((SPLITS[part] for part in parts if part in SPLITS), None)


def _refuse_files(path: Path, found: dict[str, list[Path]]) -> None:
    if found:
        names = ", ".join(file.name for candidates in found.values() for file in candidates)
        wrong = f"class folders as well as files that are named like splits: {names}"
        fix = "select the files with `--data.files`, or move one or the other away"
        raise CorpusError(path, None, wrong, fix=fix)


def _only(path: Path, found: dict[str, list[Path]]) -> dict[str, Path]:
    for split, candidates in found.items():
        if len(candidates) > 1:
            names = ", ".join(file.name for file in candidates)
            patterns = sorted({"*." + file.name.partition(".")[2] for file in candidates})
            fix = "pass a folder with one of them, or give `--data.path` one file"
            if len(patterns) > 1:
                fix = f"select with `--data.files` (such as {' or '.join(patterns)}), {fix}"
            raise CorpusError(
                path, None, f"more than one file for the split {split}: {names}", fix=fix
            )
    return {split: candidates[0] for split, candidates in found.items()}


def _nothing(path: Path, pattern: str | None, present: Sequence[Path], other: bool) -> CorpusError:
    names = [entry.name + "/" * entry.is_dir() for entry in present]
    shown = ", ".join(names[:10]) or "nothing"
    if len(names) > 10:
        shown += f" and {len(names) - 10} more"
    wrong = f"no {pattern or 'train, dev or test file'} here, only {shown}"
    if pattern is None and other:
        wrong += ": no suffix of such a corpus"
        fix = "dense_ner.yaml and similar configs read tags, dense_cls.yaml reads texts"
    else:
        fix = "name the files train, dev and test, select with `--data.files`, "
        fix += "or give `--data.path` one file"
    return CorpusError(path, None, wrong, fix=fix)
