"""Data sets of the Hugging Face hub or in memory, and Parquet files."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from residense.data.readers.file import CorpusError, File, largest
from residense.data.readers.records import Record
from residense.data.readers.splits import SPLITS

_ROW = 8  # bytes that a row, or a value, takes at least
_MOST_COLUMNS = 1000
_PLAIN = ("string", "large_string", "int", "uint", "float", "bool")


def load_splits(name: str) -> dict[str, Any]:
    """Load the splits of a data set on the Hugging Face hub, such as "user/corpus".

    Raises:
        CorpusError: `datasets` is not installed or cannot load it, or no split has a known name.
    """
    try:
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        import datasets

        splits: dict[Any, Any] = dict(datasets.load_dataset(name))
    except Exception as error:  # the hub and its cache raise errors of many kinds
        raise _unloadable(File(Path(name)), error, "check the name and the network") from None
    return known_splits(Path(name), splits)


def known_splits(path: Path, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Rename splits to "train", "validation" and "test", and drop others.

    Raises:
        CorpusError: No split has a known name.
    """
    known = {SPLITS[split]: data for split, data in splits.items() if split in SPLITS}
    if not known:
        raise CorpusError(path, None, "no known split", [*splits], f"use {', '.join(SPLITS)}")
    return known


def read_rows(file: File) -> Iterator[Record]:
    """Yield the rows of a `datasets.Dataset` or of a list of pairs.

    The pairs are (tokens, tags), (text, spans) or (text, label). Of a data set, the columns of
    strings and numbers are read, and those of lists of them.

    Raises:
        CorpusError: A column cannot be read.
    """
    rows: Any = file.rows
    if not hasattr(rows, "features"):
        for number, (first, second) in enumerate(rows, 1):
            names = ("text", "label" if file.kind == "texts" else "spans")
            keys = names if isinstance(first, str) else ("tokens", "tags")
            yield number, dict(zip(keys, (first, second), strict=True))
        return
    file.notes.append("data set")
    plain = {name: feature for name, feature in rows.features.items() if _is_plain(feature)}
    columns = [_column(file, rows, name, feature) for name, feature in plain.items()]
    for number, row in enumerate(zip(*columns, strict=True), 1):
        yield number, dict(zip(plain, row, strict=True))


def read_parquet(file: File) -> Iterator[Record]:
    """Yield the rows of a Parquet file.

    Raises:
        CorpusError: The file is malformed, or unpacks to far more than text does.
    """
    try:
        opened = replace(file, rows=_data_set(file))
    except CorpusError:
        raise
    except Exception as error:  # pyarrow raises errors of many kinds
        raise _unloadable(file, error, "download or write the file again") from None
    yield from read_rows(opened)


def _unloadable(file: File, error: Exception, fix: str) -> CorpusError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    fix = "pip install datasets" if isinstance(error, ImportError) else fix
    return file.error(None, f"datasets cannot load it ({reason})", None, fix)


def _is_plain(feature: object) -> bool:
    """Return whether a feature holds strings or numbers, or lists of them."""
    inner = getattr(feature, "feature", feature)
    return str(getattr(inner, "dtype", "")).startswith(_PLAIN)


def _column(file: File, data: Any, name: str, feature: object) -> list[Any]:
    """Return the values of a column; classes have their names."""
    try:
        values = list(data[name])
    except Exception as error:  # a string that is not UTF-8, or a file damaged in its middle
        raise _unloadable(file, error, "download or write the file again") from None
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is None:
        return values
    known = dict(enumerate(names)).get  # None for -1, a missing label
    return [[*map(known, v)] if isinstance(v, list) else known(v) for v in values]


def _data_set(file: File) -> Any:
    """Return the plain columns of a Parquet file as a data set in memory.

    The size is bounded by that of the file. The metadata give the size of unpacked pages and the
    number of values. A dictionary may repeat a long string, so strings stay in dictionaries until
    their total length is known.
    """
    import datasets
    import pyarrow
    from datasets.table import InMemoryTable
    from pyarrow import parquet

    left = 4 * largest(file.path.stat().st_size)  # numbers of eight bytes pack to a few bits
    metadata = parquet.read_metadata(file.path)
    if metadata.num_columns > _MOST_COLUMNS:
        raise file.error(None, f"more than {_MOST_COLUMNS:,} columns", None, "keep fewer")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    size = sum(chunk.total_uncompressed_size + _ROW * chunk.num_values for chunk in chunks)
    _check_size(file, left - size)
    schema = metadata.schema.to_arrow_schema()
    found = datasets.Features.from_arrow_schema(schema)
    features = datasets.Features({n: feature for n, feature in found.items() if _is_plain(feature)})
    columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    strings = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    batches = []
    with parquet.ParquetFile(file.path, read_dictionary=strings) as opened:
        for batch in opened.iter_batches(columns=[*features]):
            left -= _ROW * batch.num_rows + sum(map(_decoded_size, batch.columns))
            _check_size(file, left)
            batches.append(batch)
    table = pyarrow.Table.from_batches(batches, batches[0].schema if batches else schema)
    return datasets.Dataset(InMemoryTable(table.select([*features]).cast(features.arrow_schema)))


def _check_size(file: File, left: int) -> None:
    if left < 0:
        raise file.error(None, "unpacks to far more than text does", None, "write JSON lines")


def _decoded_size(values: Any) -> int:
    """Return the size of an array in bytes with all strings of its dictionary written out."""
    from pyarrow import compute, types

    size = values.nbytes
    while types.is_nested(values.type):
        values = values.flatten()
    if types.is_dictionary(values.type):
        lengths = compute.call_function("binary_length", [values.dictionary]).take(values.indices)
        size += compute.call_function("sum", [lengths]).as_py() or 0
    return size
