"""Records with named fields, as JSON, tables and data sets have them, as examples."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from residense.data.readers.file import Column, Example, File
from residense.data.tokenize import tokenize
from residense.messages import listed
from residense.tags import Span, encode

TEXT_NAMES = (
    *("text", "texts", "sentence", "sentences", "content", "review", "utterance", "question"),
    *("query", "document", "comment", "tweet", "body"),
)
LABEL_NAMES = (
    *("label", "labels", "category", "class", "intent", "sentiment", "target", "topic"),
    "polarity",
)
_TAG_NAMES = ("tags", "ner_tags", "labels")
_SPAN_NAMES = ("spans", "entities", "label", "labels")


class Record(NamedTuple):
    """The fields of one line or row by name, or by position where the columns have no names."""

    line: int
    fields: dict[Any, Any]


# -- texts and labels --------------------------------------------------------------------------------------------------


def text_examples(file: File, records: Iterable[Record]) -> Iterator[Example]:
    """Return the texts and labels of records.

    The fields are those that the user chose, or else the one whose name is among `TEXT_NAMES` and the one whose name
    is among `LABEL_NAMES`. Those of the first record are the fields of all.

    Raises:
        CorpusError: There are no or several such fields, or a record is malformed.
    """
    text = label = None
    for number, (line, fields) in enumerate(records):
        if number == 0:
            text, label = _columns(file, line, [*fields])
        example = _text_example(file, line, fields.get(text), fields.get(label), fields)
        if example is not None:
            yield example


def _columns(file: File, line: int, names: list[Any]) -> tuple[Any, Any]:
    text = _chosen(file, line, names, file.text_column, TEXT_NAMES)
    label = _chosen(file, line, names, file.label_column, LABEL_NAMES) if file.labeled else None
    if len(names) == 2 and file.labeled:  # a choice of one leaves the other
        if text is None and file.label_column is not None:
            text = names[1 - names.index(label)]
        if label is None and file.text_column is not None:
            label = names[1 - names.index(text)]
    if len(names) == 1 and not file.labeled:
        text = names[0]
    if text is None or text == label or (file.labeled and label is None):
        raise _unclear(file, line, names)
    where = f"text in column {text}" + (f", label in column {label}" if file.labeled else "")
    file.notes.append(f"{where} (of {listed(map(str, names))})")
    return text, label


def _chosen(file: File, line: int, names: list[Any], column: Column, usual: Sequence[str]) -> Any:
    """Return the name that a column stands for, or the only usual one."""
    if isinstance(column, int) and -len(names) <= column < len(names):
        return names[column]
    if column is not None and names.count(column) != 1:
        raise _unclear(file, line, names, f"no column {column!r}")
    found = [name for name in names if str(name).strip().lower() in usual]
    if column is None:
        return found[0] if len(found) == 1 else None
    return column


def _unclear(file: File, line: int, names: list[Any], wrong: str = "") -> Exception:
    wrong = wrong or "no column, or more than one, is named like the texts or like the labels"
    fix = "choose by name or by position, counted from 0, with `--data.text_column` and "
    return file.error(line, wrong, names, f"{fix}`--data.label_column`")


def _text_example(
    file: File, line: int, text: Any, label: Any, fields: dict[Any, Any]
) -> Example | None:
    """Return an example, or None if the record is dropped."""
    if text is not None and not isinstance(text, str):
        fix = "write a string, or choose with `--data.text_column`"
        raise file.error(line, "text that is no string", text, fix)
    if text is None or not text.strip():
        how = "rows with an empty text dropped"
        read = [*fields.values()]
        file.settle(line, "empty text", read, "write a text or remove the row", True, how)
        return None
    labels = _labels(file, line, label) if file.labeled else ()
    if labels is None:
        return None
    return Example(line, [], [], file.encodable(line, text), labels=labels)


def _labels(file: File, line: int, value: Any) -> tuple[str, ...] | None:
    """Return the labels of a text, or None if the record is dropped."""
    separator = file.label_separator
    if isinstance(value, list) and separator is None:
        fix = "give any `--data.label_separator` if a text may have several labels or none"
        raise file.error(line, "list of labels", value, fix)
    parts = value if isinstance(value, list) else [value]
    if separator is not None and isinstance(value, str):
        parts = value.split(separator) if value.strip() else []
    labels = []
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int | float | None):
            fix = "write a string or a number, or choose with `--data.label_column`"
            raise file.error(line, "label that is neither string nor number", part, fix)
        if part is None or not str(part).strip():
            how = "rows with an empty label dropped"
            file.settle(line, "empty label", value, "write a label", True, how)
            return None
        labels.append(file.encodable(line, str(part).strip()))
    return tuple(dict.fromkeys(labels))


# -- sentences and tags ------------------------------------------------------------------------------------------------


def tag_examples(file: File, records: Iterable[Record]) -> Iterator[Example]:
    """Return the sentences of records.

    A record has `tokens` with `tags`, `ner_tags` or `labels`, or a `text` with `spans`, `entities` or `label`. A span
    is [start, end, type] or {"start", "end", "label"} in characters, end exclusive; or the spans are {type: {text:
    [[start, end], ...]}} with inclusive ends, as in CLUENER. Texts are split into words, tagged in IOB2.

    Raises:
        CorpusError: A record is malformed.
    """
    for line, fields in records:
        tokens = file.text_column if isinstance(file.text_column, str) else "tokens"
        if tokens in fields:
            yield _from_tokens(file, line, fields, tokens)
        elif isinstance(fields.get("text"), str) and fields["text"].strip():
            yield _from_spans(file, line, fields)
        else:
            fix = 'write {"tokens": [...], "tags": [...]} or {"text": "...", "spans": [...]}'
            raise file.error(line, "no tokens and no text", fields, fix)


def _from_tokens(file: File, line: int, fields: dict[Any, Any], key: str) -> Example:
    tokens = _strings(file, line, key, fields[key])
    if not file.labeled:
        return Example(line, tokens, [])
    names = [file.label_column] if isinstance(file.label_column, str) else _TAG_NAMES
    name = next((name for name in names if name in fields), None)
    if name is None:
        fix = f"add {' or '.join(map(str, names))}, or choose with `--data.tag_column`"
        raise file.error(line, "no tags", [*fields], fix)
    tags = _strings(file, line, name, fields[name])
    if len(tags) != len(tokens):
        wrong = f"{len(tokens)} tokens but {len(tags)} {name}"
        raise file.error(line, wrong, fields, "give each token one tag")
    return Example(line, tokens, tags)


def _strings(file: File, line: int, key: str, values: Any) -> list[str]:
    strings = isinstance(values, list) and all(isinstance(value, str) for value in values)
    if not strings or not values:
        fix = "write a list of one or more strings (names of tags, not their numbers)"
        raise file.error(line, f"{key} are no list of strings", values, fix)
    if "" in values:
        raise file.error(line, f"empty string in {key}", values, "remove or fill it")
    return [file.encodable(line, value) for value in values]


def _from_spans(file: File, line: int, fields: dict[Any, Any]) -> Example:
    text = file.encodable(line, fields["text"])
    offsets = tokenize(text, "word")
    tokens = [text[start:end] for start, end in offsets]
    if not file.labeled:
        return Example(line, tokens, [], text, offsets)
    names = [file.label_column] if isinstance(file.label_column, str) else _SPAN_NAMES
    name = next((name for name in names if isinstance(fields.get(name), list | dict)), None)
    if name is None:
        fix = 'write "spans": [[start, end, type], ...], with no span as [], or choose with '
        raise file.error(line, "no spans", [*fields], f"{fix}`--data.tag_column`")
    spans = _spans(fields[name])
    aligned = [_align(file, line, span, text, offsets) for span in spans]
    tags = encode(_disjoint(file, line, aligned), len(tokens), "IOB2")
    return Example(line, tokens, tags, text, offsets)


def _spans(value: Any) -> list[Any]:
    """Return spans as a list; those of CLUENER, {type: {text: [[start, end], ...]}}, have inclusive ends."""
    if isinstance(value, list):
        return value
    found: list[Any] = []
    for kind, texts in value.items():
        for places in texts.values() if isinstance(texts, dict) else [texts]:
            for place in places if isinstance(places, list) else [places]:
                match place:
                    case [int(start), int(end)]:
                        found.append([start, end + 1, kind])
                    case _:
                        found.append({kind: place})  # refused as malformed
    return found


def _align(file: File, line: int, span: Any, text: str, offsets: list[tuple[int, int]]) -> Span:
    """Return a span of characters as a span of tokens."""
    start, end, kind = _characters(file, line, span, text)
    first = bisect_right(offsets, start, key=lambda place: place[1])
    behind = bisect_left(offsets, end, key=lambda place: place[0])
    if first == behind:
        raise file.error(line, "span of nothing but spaces", span, "remove it")
    aligned = Span(first, behind, kind)
    left, right = offsets[first][0], offsets[behind - 1][1]
    if left < start or right > end:
        wrong = f"span {_shown(text, start, end)} begins or ends inside a token"
        fix = f"make it {_shown(text, left, right)}"
        return file.settle(line, wrong, span, fix, aligned, "span widened to whole tokens")
    return aligned


def _characters(file: File, line: int, span: Any, text: str) -> tuple[int, int, str]:
    values = span
    if isinstance(span, dict):
        values = [span.get("start"), span.get("end"), span.get("label", span.get("type"))]
    match values:
        case [int(start), int(end), str(kind)] if 0 <= start < end <= len(text) and kind:
            return start, end, file.encodable(line, kind)
    fix = f"write [start, end, type], the end exclusive and at most {len(text)}"
    raise file.error(line, "not a span in this text", span, fix)


def _shown(text: str, start: int, end: int) -> str:
    return repr(text[start:end] if end - start <= 60 else f"{text[start : start + 57]}...")


def _disjoint(file: File, line: int, aligned: list[Span]) -> list[Span]:
    """Return spans without overlaps: the longer one stays, or the first of two equally long ones."""
    kept: list[Span] = []
    owner: dict[int, Span] = {}
    for span in sorted(aligned, key=lambda span: (span.start - span.end, span.start)):
        # A longer span covers one end of a shorter one.
        rival = owner.get(span.start) or owner.get(span.end - 1)
        if rival is None:
            kept.append(span)
            owner.update(dict.fromkeys(range(span.start, span.end), span))
        else:
            how = "of overlapping spans the longer kept"
            read = [rival, span]
            file.settle(line, "overlapping spans", read, "keep one of them", rival, how)
    return kept
