"""JSON lines: an object on each line."""

import json
from collections.abc import Iterator

from residense.data.readers.file import File
from residense.data.readers.records import Record


def read_jsonl(file: File) -> Iterator[Record]:
    """Return the objects of a JSON lines file; blank lines are skipped.

    Raises:
        CorpusError: A line is no JSON object.
    """
    file.notes.append("JSON lines")
    for number, line in enumerate(file.lines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise file.error(number, f"not JSON ({error})", line, "correct the line") from None
        if not isinstance(fields, dict):
            raise file.error(number, "no object", fields, 'write {"text": "...", "label": "..."}')
        yield Record(number, fields)
