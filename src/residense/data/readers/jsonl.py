"""JSON lines: an object on each line."""

import json
from collections.abc import Iterator

from residense.data.readers.file import File
from residense.data.readers.records import Record


def read_jsonl(file: File) -> Iterator[Record]:
    """Yield the objects of a JSON lines file; blank lines are skipped.

    Raises:
        CorpusError: A line is not a JSON object.
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
        if r"\ud" in line.lower():
            fields = _encodable(file, number, fields)
        yield number, fields


def _encodable(file: File, number: int, fields: dict[str, object]) -> dict[str, object]:
    """Replace halves of surrogate pairs, which UTF-8 cannot represent."""
    text = json.dumps(fields, ensure_ascii=False)
    valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if valid != text:
        wrong = "half a surrogate pair"
        file.settle(number, wrong, text, "write the whole character", f"{wrong} read as U+FFFD")
    return json.loads(valid)
