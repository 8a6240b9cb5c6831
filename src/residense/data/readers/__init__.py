"""Read corpora: a module for each format, whose function yields examples, or records that become examples."""

from collections.abc import Iterable

from residense.data.readers.columns import read_columns
from residense.data.readers.conllu import is_conllu, read_conllu
from residense.data.readers.file import Column, CorpusError, Example, File, Kind
from residense.data.readers.folders import read_folder
from residense.data.readers.hub import known_splits, load_splits, read_parquet, read_rows
from residense.data.readers.jsonl import read_jsonl
from residense.data.readers.records import Record, tag_examples, text_examples
from residense.data.readers.splits import SUFFIXES, find_splits
from residense.data.readers.tables import read_table, refuse_swallowed

__all__ = [
    "Column",
    "CorpusError",
    "Example",
    "File",
    "Kind",
    "examples_of",
    "find_splits",
    "known_splits",
    "load_splits",
    "read",
    "read_rows",
]


def read(file: File) -> list[Example]:
    """Return the sentences or texts of a file, whose name says its format.

    Raises:
        CorpusError: The file is malformed, or holds nothing.
    """
    if file.path.is_dir():
        return _filled(file, read_folder(file))
    if file.suffix == "jsonl":
        return examples_of(file, read_jsonl(file))
    if file.suffix == "parquet":
        return examples_of(file, read_parquet(file))
    if file.kind == "texts":
        if file.suffix not in SUFFIXES["texts"]:
            fix = f"rename it to .{', .'.join(SUFFIXES['texts'])}, whichever it is"
            raise file.error(None, "suffix of no known format for texts", None, fix)
        examples = examples_of(file, read_table(file))
        refuse_swallowed(file, examples)
        return examples
    lines = file.lines()
    read_lines = read_conllu if file.suffix == "conllu" or is_conllu(lines) else read_columns
    return _filled(file, read_lines(file, lines))


def examples_of(file: File, records: Iterable[Record]) -> list[Example]:
    """Return the sentences or texts of records.

    Raises:
        CorpusError: A record is malformed, or there is none.
    """
    make = tag_examples if file.kind == "tags" else text_examples
    return _filled(file, [*make(file, records)])


def _filled(file: File, examples: list[Example]) -> list[Example]:
    if not examples:
        wrong = f"no {'sentence' if file.kind == 'tags' else 'text'} in this file"
        raise file.error(None, wrong, None, "check that it is the right one")
    return examples
