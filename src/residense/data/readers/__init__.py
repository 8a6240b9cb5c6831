"""Read corpora: a module for each format, whose function yields examples, or records that become examples."""

from residense.data.readers.columns import read_columns
from residense.data.readers.file import Example, File
from residense.data.readers.folders import read_folder
from residense.data.readers.hub import read_parquet, read_rows
from residense.data.readers.jsonl import read_jsonl
from residense.data.readers.records import tag_examples, text_examples
from residense.data.readers.splits import SUFFIXES
from residense.data.readers.tables import read_table, refuse_swallowed


def read(file: File) -> list[Example]:
    """Return the sentences or texts of a file, whose name says its format.

    Raises:
        CorpusError: The file is malformed, or holds nothing.
    """
    examples = _read(file)
    if not examples:
        raise file.error(None, "no examples in this file", None, "check `--data.path`")
    return examples


def _read(file: File) -> list[Example]:
    make = tag_examples if file.kind == "tags" else text_examples
    if file.rows is not None:
        return [*make(file, read_rows(file))]
    if file.path.is_dir():
        return read_folder(file)
    if file.suffix == "jsonl":
        return [*make(file, read_jsonl(file))]
    if file.suffix == "parquet":
        return [*make(file, read_parquet(file))]
    if file.kind == "tags":
        return read_columns(file)
    if file.suffix not in SUFFIXES["texts"]:
        suffixes = f"name it .{', .'.join(SUFFIXES['texts'])}"
        raise file.error(None, "suffix of no known format for texts", None, suffixes)
    examples = [*text_examples(file, read_table(file))]
    refuse_swallowed(file, examples)
    return examples
