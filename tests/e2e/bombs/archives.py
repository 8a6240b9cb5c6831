"""Gzip and zip files that unpack without measure."""

import gzip
import struct
import zipfile
from pathlib import Path

from .table import Bombs, Reader, tags, texts, vectors, written

BOMBS = Bombs()


def packed(folder: Path, name: str, part: bytes, size: int) -> Path:
    """A gzip file of a part repeated to a size."""
    with gzip.open(folder / name, "wb") as stream:
        block = part * max(1, (1 << 20) // len(part))
        for _ in range(size // len(block)):
            stream.write(block)
    return folder / name


@BOMBS.add
def gzip_of_columns(folder: Path) -> Reader:
    return tags(packed(folder, "train.conll.gz", b"a O\n", 400 << 20))


@BOMBS.add
def gzip_of_short_sentences_just_within_the_bound(folder: Path) -> Reader:
    return tags(packed(folder, "train.conll.gz", b"a O\n\n", 1 << 20))


@BOMBS.add
def gzip_of_one_letter(folder: Path) -> Reader:
    return tags(packed(folder, "train.conll.gz", b"a", 1500 << 20))


@BOMBS.add
def gzip_of_line_ends(folder: Path) -> Reader:
    return tags(packed(folder, "train.conllu.gz", b"\n", 400 << 20))


@BOMBS.add
def gzip_of_json_lines(folder: Path) -> Reader:
    return tags(packed(folder, "train.jsonl.gz", b'{"tokens": ["a"], "tags": ["O"]}\n', 400 << 20))


@BOMBS.add
def gzip_of_rows(folder: Path) -> Reader:
    return texts(packed(folder, "train.csv.gz", b"a b,x\n", 400 << 20))


@BOMBS.add
def gzip_of_short_rows_just_within_the_bound(folder: Path) -> Reader:
    return texts(packed(folder, "train.tsv.gz", b"a\tx\nb a\ty\n", 1 << 20))


@BOMBS.add
def gzip_of_quotes(folder: Path) -> Reader:
    return texts(packed(folder, "train.tsv.gz", b'"', 400 << 20))


@BOMBS.add
def gzip_in_gzip(folder: Path) -> Reader:
    inner = packed(folder, "inner.gz", b"a O\n", 400 << 20)
    return tags(written(folder, "train.conll.gz", gzip.compress(inner.read_bytes())))


@BOMBS.add
def gzip_of_very_many_members(folder: Path) -> Reader:
    return tags(
        written(
            folder,
            "train.conll.gz",
            gzip.compress(b"") * 50_000 + gzip.compress(b"a O\nb B-X\n" * 9),
        )
    )


@BOMBS.add
def gzip_of_vectors(folder: Path) -> Reader:
    return vectors(packed(folder, "words.txt.gz", b"a 1 2 3\n", 400 << 20))


def zipped(folder: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(folder / "words.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return folder / "words.zip"


@BOMBS.add
def zip_of_vectors(folder: Path) -> Reader:
    return vectors(zipped(folder, words__txt=b"a 1 2 3\n" * (50 << 20)))


@BOMBS.add
def zip_of_one_line(folder: Path) -> Reader:
    return vectors(zipped(folder, words__vec=b"1 " * (200 << 20)))


@BOMBS.add
def zip_whose_size_lies(folder: Path) -> Reader:
    path = zipped(folder, words__txt=b"a 1 2 3\n" * (50 << 20))
    path.write_bytes(
        path.read_bytes().replace(struct.pack("<I", 400 << 20), struct.pack("<I", 800))
    )
    return vectors(path)


@BOMBS.add
def zip_of_very_many_members(folder: Path) -> Reader:
    return vectors(zipped(folder, **{f"{i}__txt": b"" for i in range(30_000)}))
