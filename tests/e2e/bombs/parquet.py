"""Parquet files that expand when they are read."""

import struct
from pathlib import Path
from typing import Any

import pytest

from .table import LONG, Bombs, Reader, tags, texts

BOMBS = Bombs()

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def parquet(folder: Path, columns: dict[str, Any], groups: int = 1, **options: Any) -> Path:
    table = pa.table(columns)
    with pq.ParquetWriter(
        folder / "train.parquet", table.schema, compression="zstd", **options
    ) as writer:
        for _ in range(groups):
            writer.write_table(table)
    return folder / "train.parquet"


def repeated(value: str, count: int, kind: Any = None) -> Any:
    """A column of one string over and over, which takes the place of one."""
    values = pa.array([value], kind or pa.string())
    return pa.DictionaryArray.from_arrays(_zeros(count), values)


def _zeros(count: int) -> Any:
    return pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(bytes(4 * count))])


def lists(values: Any, rows: int) -> Any:
    """A column of lists, the values shared out over the rows."""
    each = len(values) // rows
    return pa.ListArray.from_arrays(pa.array(range(0, each * rows + 1, each), pa.int32()), values)


@BOMBS.add
def parquet_tokens_in_a_dictionary(folder: Path) -> Reader:
    count = 1700
    columns = {
        "tokens": lists(repeated(LONG, count), count),
        "ner_tags": lists(repeated("O", count), count),
    }
    return tags(parquet(folder, columns))


@BOMBS.add
def parquet_one_row_of_long_tokens(folder: Path) -> Reader:
    columns = {"tokens": lists(repeated(LONG, 1700), 1), "ner_tags": lists(repeated("O", 1700), 1)}
    return tags(parquet(folder, columns))


@BOMBS.add
def parquet_texts_in_a_dictionary(folder: Path) -> Reader:
    return texts(parquet(folder, {"text": repeated(LONG, 1700), "label": repeated("a", 1700)}))


@BOMBS.add
def parquet_large_texts_in_a_dictionary(folder: Path) -> Reader:
    long = repeated(LONG, 1700, pa.large_string())
    return texts(parquet(folder, {"text": long, "label": repeated("a", 1700)}))


@BOMBS.add
def parquet_pages_that_are_compressed(folder: Path) -> Reader:
    columns = {"text": pa.array([LONG] * 17), "label": pa.array(["a"] * 17)}
    return texts(parquet(folder, columns, groups=100, use_dictionary=False))


@BOMBS.add
def parquet_many_equal_numbers(folder: Path) -> Reader:
    count = 2_000_000
    return texts(parquet(folder, {"text": _zeros(count), "label": _zeros(count)}, groups=50))


@BOMBS.add
def parquet_a_row_of_very_many_numbers(folder: Path) -> Reader:
    count = 400_000_000
    values = pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bytes(count // 8))])
    return tags(parquet(folder, {"tokens": lists(values, 1), "ner_tags": lists(_zeros(1), 1)}))


@BOMBS.add
def parquet_rows_of_nothing(folder: Path) -> Reader:
    return texts(parquet(folder, {"text": pa.nulls(100_000_000), "label": pa.nulls(100_000_000)}))


@BOMBS.add
def parquet_rows_of_empty_lists(folder: Path) -> Reader:
    count = 20_000_000
    empty = pa.ListArray.from_buffers(
        pa.list_(pa.string()),
        count,
        [None, pa.py_buffer(bytes(4 * count + 4))],
        children=[pa.array([], pa.string())],
    )
    return tags(parquet(folder, {"tokens": empty, "ner_tags": empty}))


@BOMBS.add
def parquet_very_many_columns(folder: Path) -> Reader:
    return texts(parquet(folder, {f"c{i}": pa.array(["a"]) for i in range(20_000)}))


@BOMBS.add
def parquet_deep_lists(folder: Path) -> Reader:
    kind, value = pa.string(), "a"
    for _ in range(200):
        kind, value = pa.list_(kind), [value]  # type: ignore[assignment]
    return tags(parquet(folder, {"tokens": pa.array([value], kind), "ner_tags": pa.array([["O"]])}))


@BOMBS.add
def parquet_very_many_groups(folder: Path) -> Reader:
    return texts(
        parquet(folder, {"text": pa.array(["a b"]), "label": pa.array(["a"])}, groups=10_000)
    )


@BOMBS.add
def parquet_deep_features(folder: Path) -> Reader:
    path = parquet(folder, {"text": pa.array(["a b"]), "label": pa.array(["a"])})
    table = pq.read_table(path)
    nested = b'{"info": {"features": ' + b'{"a": ' * 200_000 + b"1" + b"}" * 200_002
    pq.write_table(table.replace_schema_metadata({"huggingface": nested}), path)
    return texts(path)


@BOMBS.add
def parquet_a_footer_that_says_to_be_huge(folder: Path) -> Reader:
    path = parquet(folder, {"text": pa.array(["a b"]), "label": pa.array(["a"])})
    content = path.read_bytes()
    path.write_bytes(content[:-8] + struct.pack("<I", 0x7FFFFFFF) + content[-4:])
    return texts(path)


@BOMBS.add
def parquet_sizes_that_lie(folder: Path) -> Reader:
    """All of the metadata says that a page of 300 MB holds little."""
    path = parquet(
        folder,
        {"text": pa.array([LONG] * 300), "label": pa.array(["a"] * 300)},
        use_dictionary=False,
    )
    size = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    content, said = path.read_bytes(), _varint(size)
    assert said in content
    path.write_bytes(content.replace(said, _varint(100, len(said))))
    return texts(path)


def _varint(value: int, length: int = 0) -> bytes:
    """A number as Thrift writes it, in at least so many bytes."""
    left, parts = 2 * value, []
    while left or len(parts) < length:
        parts.append(left & 0x7F)
        left >>= 7
    return bytes(part | 0x80 for part in parts[:-1]) + bytes(parts[-1:])
