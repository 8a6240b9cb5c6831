"""Opening parquet files and data sets of the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

from residense.data.files import largest
from residense.data.sentences import CorpusError

_ROW = 8  # bytes that a row, or a value, takes at least once it is read
_MOST_COLUMNS = 1000
_SPLITS = {"train": "train", "validation": "validation", "dev": "validation", "test": "test"}


def load_splits(name_or_path: str) -> dict[str, Any]:
    """Return the splits of a parquet file, which is "train", or of a data set on the Hugging Face hub.

    Args:
        name_or_path: Path ending in .parquet, or hub id such as "user/corpus".

    Raises:
        CorpusError: `datasets` is missing or cannot load it, or there is no split with a known name.
    """
    path = Path(name_or_path)
    try:
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        import datasets

        if path.suffix.lower() == ".parquet":
            return {"train": _read_parquet(path)}
        splits: dict[Any, Any] = dict(datasets.load_dataset(name_or_path))
    except ImportError as error:
        raise CorpusError(path, None, f"{error}", fix="pip install datasets") from None
    except CorpusError:
        raise
    except Exception as error:  # the hub, its cache and pyarrow raise whatever they like
        fix = "check the name, the network and `--data.path`"
        raise CorpusError(
            path, None, f"datasets cannot load it ({_reason(error)})", fix=fix
        ) from None
    if not splits.keys() & _SPLITS.keys():
        raise CorpusError(
            path, None, f"no split {', '.join(_SPLITS)}", list(splits), "choose another data set"
        )
    return {_SPLITS[split]: data for split, data in splits.items() if split in _SPLITS}


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_plain(feature: object) -> bool:
    """Whether a feature holds strings or numbers, or lists of them."""
    inner = getattr(feature, "feature", feature)
    return str(getattr(inner, "dtype", "")).startswith(
        ("string", "large_string", "int", "uint", "float", "bool")
    )


def _read_parquet(path: Path) -> Any:
    """The plain columns of a Parquet file as a data set in memory, within bounds that follow from the size of the file.

    A page may be compressed or a number repeated to any size, which the metadata says; and a long string may be
    repeated by its place in a dictionary, so dictionaries are kept until it is known how much they stand for.
    """
    import datasets
    import pyarrow
    from datasets.table import InMemoryTable
    from pyarrow import parquet

    left = 4 * largest(
        path.stat().st_size
    )  # tags are numbers of eight bytes that pack to a few bits
    with parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if len(file.schema) > _MOST_COLUMNS:
            raise CorpusError(
                path, None, f"{len(file.schema):,} columns", fix=f"keep at most {_MOST_COLUMNS:,}"
            )
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        _refuse_bomb(
            path,
            left - sum(chunk.total_uncompressed_size + _ROW * chunk.num_values for chunk in chunks),
        )
        found = datasets.Features.from_arrow_schema(file.schema_arrow)
        columns = [file.schema.column(i) for i in range(len(file.schema))]
    features = datasets.Features(
        {name: feature for name, feature in found.items() if is_plain(feature)}
    )
    strings = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    batches = []
    with parquet.ParquetFile(path, read_dictionary=strings) as file:
        for batch in file.iter_batches(columns=list(features)):
            left -= _ROW * batch.num_rows + sum(map(_decoded_size, batch.columns))
            _refuse_bomb(path, left)
            batches.append(batch)
        table = pyarrow.Table.from_batches(
            batches, file.schema_arrow if not batches else batches[0].schema
        )
    table = table.select(list(features)).cast(features.arrow_schema)
    return datasets.Dataset(InMemoryTable(table))


def _refuse_bomb(path: Path, left: int) -> None:
    if left < 0:
        wrong = "unpacks to far more than text does"
        raise CorpusError(path, None, wrong, fix="convert it to JSON lines, if it is meant to")


def _decoded_size(values: Any) -> int:
    """Bytes of an array once its dictionary, if it has one, is written out."""
    from pyarrow import types
    from pyarrow.compute import call_function

    size = values.nbytes
    while (
        types.is_list(values.type)
        or types.is_large_list(values.type)
        or types.is_fixed_size_list(values.type)
    ):
        values = values.flatten()
    if types.is_dictionary(values.type):
        lengths = call_function("binary_length", [values.dictionary]).take(values.indices)
        size += call_function("sum", [lengths]).as_py() or 0
    return size


def column(path: Path, data: Any, name: str) -> list[Any]:
    """Return all values of a column.

    Raises:
        CorpusError: a string in it is not UTF-8, or the file is damaged in its middle.
    """
    try:
        return list(data[name])
    except Exception as error:  # as above
        wrong = f"column {name} cannot be read ({_reason(error)})"
        raise CorpusError(path, None, wrong, fix="fetch or write the file again") from None
