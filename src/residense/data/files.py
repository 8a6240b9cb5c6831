"""Finding the files of a corpus and opening them.

The name of a file says its split, and its bytes are decoded strictly unless repair is asked for.
"""

import fnmatch
import gzip
import re
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
_SUFFIXES = re.compile(r".+\.(?:(?:conll|conllu|txt|tsv|bio|jsonl)(?:\.gz)?|parquet)", re.IGNORECASE)


def find_splits(path: Path, pattern: str | None = None) -> dict[str, Path]:
    """Return the files of a corpus by split: "train", "validation", "test", as far as there are any.

    The split of a file is the first part of its name, parts being what "-", "_" and "." separate, that says
    train, dev, valid, validation, val or test. A file alone, given or found, is "train".

    Args:
        path: A folder with at most one file for each split, or one file.
        pattern: Glob that the file names in the folder must match, such as "*.slots.conll"; without it, files
            with the suffix .conll, .conllu, .txt, .tsv, .bio or .jsonl (also with .gz) or .parquet count.
    """
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise CorpusError(path, None, "no such file or folder", fix="check `--data.path`")
    present = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    files = [file for file in present if _selected(file.name, pattern)]
    found: dict[str, list[Path]] = {}
    for file in files:
        if split := _split_of(file.name):
            found.setdefault(split, []).append(file)
    if not found and len(files) == 1:
        return {"train": files[0]}
    if not found:
        wrong = f"no {pattern or 'train, dev or test file'} here, only {_names(path.iterdir())}"
        fix = "name the files train, dev and test, select with `--data.files`, or give `--data.path` one file"
        raise CorpusError(path, None, wrong, fix=fix)
    ordered = {split: found[split] for split in ("train", "validation", "test") if split in found}
    for split, candidates in ordered.items():
        if len(candidates) > 1:
            raise _ambiguous(path, split, candidates)
    return {split: candidates[0] for split, candidates in ordered.items()}


def read_lines(path: Path, encoding: str, repair: bool) -> tuple[list[str], int]:
    """Return the lines of a text file without their ends, and how many characters could not be decoded.

    Only LF and CRLF end a line: what else Unicode calls a line end, such as NEL, occurs inside tokens.

    Args:
        path: The file, unpacked if its name ends in .gz.
        encoding: Name of its encoding; a byte order mark is accepted.
        repair: Replace what cannot be decoded by U+FFFD, and count it, instead of raising.
    """
    return decode_lines(_read_bytes(path), path, encoding, repair)


def decode_lines(data: bytes, path: Path, encoding: str, repair: bool) -> tuple[list[str], int]:
    """Do the same for bytes that have been read; `path` says where from."""
    replaced = 0
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise CorpusError(path, None, str(error), fix="correct `--data.encoding`") from None
    except UnicodeDecodeError as error:
        if not repair:
            line = data[: error.start].decode(encoding, "replace").count("\n") + 1
            wrong = f"byte 0x{data[error.start]:02x} is not {encoding}"
            fix = "name the encoding with `--data.encoding`, or replace such bytes with `--data.repair true`"
            raise CorpusError(path, line, wrong, data.split(b"\n")[line - 1], fix) from None
        text = data.decode(encoding, "replace")
        replaced = text.count("\ufffd") - data.decode(encoding, "ignore").count("\ufffd")
    lines = text.removeprefix("\ufeff").split("\n")
    return [line.removesuffix("\r") for line in lines], replaced


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        wrong = f"corrupt or truncated gzip file ({error})"
        raise CorpusError(path, None, wrong, fix="fetch the file again") from None
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
        raise CorpusError(path, None, wrong, fix="check `--data.path`") from None


def _selected(name: str, pattern: str | None) -> bool:
    return bool(_SUFFIXES.fullmatch(name)) if pattern is None else fnmatch.fnmatch(name, pattern)


def _split_of(name: str) -> str | None:
    return next((_SPLITS[part] for part in re.split(r"[-_.]", name.lower()) if part in _SPLITS), None)


def _ambiguous(path: Path, split: str, candidates: list[Path]) -> CorpusError:
    wrong = f"more than one file for the split {split}: {', '.join(file.name for file in candidates)}"
    patterns = sorted({"*." + file.name.partition(".")[2] for file in candidates})
    fix = f"select with `--data.files` (such as {' or '.join(patterns)}), " if len(patterns) > 1 else ""
    fix += "pass a folder with one of them, or give `--data.path` one file"
    return CorpusError(path, None, wrong, fix=fix)


def _names(files: Iterable[Path]) -> str:
    names = sorted(file.name + "/" * file.is_dir() for file in files)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "nothing") + more
