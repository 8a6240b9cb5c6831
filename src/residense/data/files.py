"""Finding the files of a corpus and opening them.

The name of a file says its split, and its bytes are decoded strictly unless repair is asked for.
"""

import fnmatch
import gzip
import re
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

from residense.data.sentences import CorpusError

_SPLITS = {
    "train": "train",
    "dev": "validation",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
ORDER = ("train", "validation", "test")
_SUFFIXES = re.compile(
    r".+\.(?:(?:conll|conllu|txt|tsv|bio|jsonl)(?:\.gz)?|parquet)", re.IGNORECASE
)
_SIZED = re.compile(r"(train)[0-9]+[km]?")


def find_splits(
    path: Path, pattern: str | None = None, suffixes: re.Pattern[str] = _SUFFIXES
) -> dict[str, Path]:
    """Return the files of a corpus by split: "train", "validation", "test", as far as there are any.

    The split of a file is the first part of its name, parts being what "-", "_" and "." separate, that says
    train, dev, valid, validation, val or test. Where no file says train, one that says train and a size, such as
    train10k, does. A file alone, given or found, is "train".

    Args:
        path: A folder with at most one file for each split, or one file.
        pattern: Glob that the file names in the folder must match, such as "*.slots.conll".
        suffixes: What the file names must match where no pattern is given; by default those with the suffix
            .conll, .conllu, .txt, .tsv, .bio or .jsonl (also with .gz) or .parquet.
    """
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise CorpusError(path, None, "no such file or folder", fix="check `--data.path`")
    files = select(path, pattern, suffixes)
    found = by_split(files)
    if not found and len(files) == 1:
        return {"train": files[0]}
    if not found:
        wrong = f"no {pattern or 'train, dev or test file'} here, only {_names(path.iterdir())}"
        if pattern is None and by_split(select(path, "*", suffixes)):
            fix = "a corpus of tags is read by dense_ner.yaml and its like, one of texts by dense_cls.yaml"
            raise CorpusError(path, None, f"{wrong}: no suffix of such a corpus", fix=fix)
        fix = "name the files train, dev and test, select with `--data.files`, or give `--data.path` one file"
        raise CorpusError(path, None, wrong, fix=fix)
    return only(path, found)


def select(path: Path, pattern: str | None, suffixes: re.Pattern[str]) -> list[Path]:
    """Return the files in a folder whose names match, sorted, hidden ones left out."""
    present = sorted(
        file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")
    )
    return [file for file in present if _selected(file.name, pattern, suffixes)]


def by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the files whose names say their split; a name with a size counts where no other is "train"."""
    files = list(files)
    found = {file: _split_of(file.name, sized=False) for file in files}
    if "train" not in found.values():
        found = {file: _split_of(file.name, sized=True) for file in files}
    return {
        split: [file for file in files if found[file] == split]
        for split in ORDER
        if split in found.values()
    }


def only(path: Path, found: dict[str, list[Path]]) -> dict[str, Path]:
    """Return the one file or folder of each split; more than one is an error."""
    for split, candidates in found.items():
        if len(candidates) > 1:
            raise _ambiguous(path, split, candidates)
    return {split: candidates[0] for split, candidates in found.items()}


def find_classes(path: Path) -> dict[str, list[Path]]:
    """Return the texts of each class folder in `path`: files CLASS/*.txt, sorted, hidden ones left out.

    Folders named like a split are no classes; neither is "unsup", where the IMDb corpus has texts without labels.
    """
    classes = {}
    for folder in sorted(_folders(path)):
        files = (
            file
            for file in sorted(folder.iterdir())
            if file.is_file() and not file.name.startswith(".")
        )
        texts = [file for file in files if file.suffix.lower() == ".txt"]
        if texts and folder.name.lower() not in _SPLITS.keys() | {"unsup"}:
            classes[folder.name] = texts
    return classes


def find_class_splits(path: Path) -> dict[str, list[Path]]:
    """Return the folders in `path` that are named like a split and hold class folders, by split."""
    folders = [folder for folder in sorted(_folders(path)) if find_classes(folder)]
    splits = [_SPLITS.get(folder.name.lower()) for folder in folders]
    return {
        name: [folders[i] for i, split in enumerate(splits) if split == name]
        for name in ORDER
        if name in splits
    }


def read_lines(path: Path, encoding: str, repair: bool) -> tuple[list[str], int]:
    """Return the lines of a text file without their ends, and how many characters could not be decoded.

    Only LF and CRLF end a line: what else Unicode calls a line end, such as NEL, occurs inside tokens.

    Args:
        path: The file, unpacked if its name ends in .gz.
        encoding: Name of its encoding; a byte order mark is accepted.
        repair: Replace what cannot be decoded by U+FFFD, and count it, instead of raising.
    """
    return decode_lines(_read_bytes(path), path, encoding, repair)


def text_lines(path: str | None, encoding: str, repair: bool) -> list[str] | None:
    """Return the texts of a .txt file or of standard input, one a line, blank ones too; None for any other file."""
    if path in (None, "-"):
        lines = decode_lines(sys.stdin.buffer.read(), Path("standard input"), encoding, repair)[0]
    elif path.lower().removesuffix(".gz").endswith(".txt"):
        lines = read_lines(Path(path), encoding, repair)[0]
    else:
        return None
    return lines[:-1] if lines[-1] == "" else lines  # the last line ends, it does not begin another


def decode_lines(data: bytes, path: Path, encoding: str, repair: bool) -> tuple[list[str], int]:
    """Do the same for bytes that have been read; `path` says where from."""
    text, replaced = _decode(data, path, encoding, repair)
    return [line.removesuffix("\r") for line in text.split("\n")], replaced


def read_text(path: Path, encoding: str, repair: bool) -> tuple[str, int]:
    """Return what `read_lines` does as one text, with its line ends."""
    return _decode(_read_bytes(path), path, encoding, repair)


def _decode(data: bytes, path: Path, encoding: str, repair: bool) -> tuple[str, int]:
    replaced = 0
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise CorpusError(path, None, str(error), fix="correct `--data.encoding`") from None
    except UnicodeDecodeError as error:
        if not repair:
            line = data[: error.start].decode(encoding, "replace").count("\n") + 1
            wrong = f"byte 0x{data[error.start]:02x} is not {encoding}"
            fix = "name the encoding with `--data.encoding`, such as `--data.encoding latin-1`, or replace such bytes"
            fix += " with `--data.repair true`"
            read = (
                data[: error.start].rpartition(b"\n")[2] + data[error.start :].partition(b"\n")[0]
            )
            raise CorpusError(path, line, wrong, read, fix) from None
        text = data.decode(encoding, "replace")
        replaced = text.count("\ufffd") - data.decode(encoding, "ignore").count("\ufffd")
    except UnicodeError as error:  # some codecs, such as idna, do not say where
        raise CorpusError(
            path, None, f"not {encoding} ({error})", fix="correct `--data.encoding`"
        ) from None
    return text.removeprefix("\ufeff"), replaced


def largest(packed: int) -> int:
    """How many bytes a file of so many may unpack to: beyond that it is a bomb. Text packs to a tenth or so."""
    return max(1 << 20, 50 * packed)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix.lower() != ".gz":
            return path.read_bytes()
        size = largest(path.stat().st_size)
        with gzip.open(path) as stream:
            data = stream.read(size + 1)
        if len(data) > size:
            raise CorpusError(
                path, None, "unpacks to far more than text does", fix="unpack it, if it is meant to"
            )
        return data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        wrong = f"corrupt or truncated gzip file ({error})"
        raise CorpusError(path, None, wrong, fix="fetch the file again") from None
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
        raise CorpusError(path, None, wrong, fix="check `--data.path`") from None


def _folders(path: Path) -> Iterable[Path]:
    return (
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )


def _selected(name: str, pattern: str | None, suffixes: re.Pattern[str]) -> bool:
    return bool(suffixes.fullmatch(name)) if pattern is None else fnmatch.fnmatch(name, pattern)


def _split_of(name: str, sized: bool) -> str | None:
    parts = re.split(r"[-_.]", name.lower())
    if sized:
        parts = [_SIZED.sub(r"\1", part) if _SIZED.fullmatch(part) else part for part in parts]
    return next((_SPLITS[part] for part in parts if part in _SPLITS), None)


def _ambiguous(path: Path, split: str, candidates: list[Path]) -> CorpusError:
    wrong = (
        f"more than one file for the split {split}: {', '.join(file.name for file in candidates)}"
    )
    patterns = sorted({"*." + file.name.partition(".")[2] for file in candidates})
    fix = (
        f"select with `--data.files` (such as {' or '.join(patterns)}), "
        if len(patterns) > 1
        else ""
    )
    fix += "pass a folder with one of them, or give `--data.path` one file"
    return CorpusError(path, None, wrong, fix=fix)


def _names(files: Iterable[Path]) -> str:
    names = sorted(file.name + "/" * file.is_dir() for file in files)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "nothing") + more
