"""Readers of corpora: a module for each format."""

from collections.abc import Iterable

from residense.data.readers.columns import read_columns
from residense.data.readers.file import Example, File
from residense.data.readers.folders import read_folder
from residense.data.readers.hub import read_parquet, read_rows
from residense.data.readers.jsonl import read_jsonl
from residense.data.readers.records import tag_examples, text_examples
from residense.data.readers.tables import read_table, refuse_swallowed


def read(file: File) -> list[Example]:
    """Read the sentences or texts of a file, in the format given by its suffix.

    Raises:
        CorpusError: The file is malformed or empty.
    """
    examples = [*_read(file)]
    if not examples:
        raise file.error(None, "no examples in this file", None, "check `--data.path`")
    return examples


def _read(file: File) -> Iterable[Example]:
    if file.rows is not None:
        records = read_rows(file)
    elif file.path.is_dir():
        return read_folder(file)
    elif file.suffix == "jsonl":
        records = read_jsonl(file)
    elif file.suffix == "parquet":
        records = read_parquet(file)
    elif file.kind == "tags":
        return read_columns(file)
    else:
        examples = [*text_examples(file, read_table(file))]
        refuse_swallowed(file, examples)
        return examples
    return tag_examples(file, records) if file.kind == "tags" else text_examples(file, records)
