"""Convert records with named fields (JSON, tables, data sets) to examples."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from residense.data.readers.file import Column, Example, File
from residense.data.tokenize import tokenize
from residense.messages import listed
from residense.tags import Span, encode

TEXT_NAMES = (
    *("text", "texts", "sentence", "sentences", "content", "review", "utterance", "question"),
    *("query", "document", "comment", "tweet", "body"),
)
LABEL_NAMES = ("label", "labels", "category", "class", "intent", "sentiment", "target", "topic")
LABEL_NAMES += ("polarity",)
_TAG_NAMES = ("tags", "ner_tags", "spans", "entities", "labels", "label")


Record = tuple[int, dict[Any, Any]]  # line, and fields by name, or by position without names


def text_examples(file: File, records: Iterable[Record]) -> Iterator[Example]:
    """Yield the texts and labels of records.

    The fields are the chosen ones, or else the only one named as in `TEXT_NAMES` and the only one
    named as in `LABEL_NAMES`. Those of the first record are the fields of all.

    Raises:
        CorpusError: There are no or several such fields, or a record is malformed.
    """
    columns = None
    for line, fields in records:
        columns = columns or _columns(file, line, [*fields])
        text = fields.get(columns[0])
        if text is not None and not isinstance(text, str):
            raise file.error(line, "text that is not a string", text, "choose `--data.text_column`")
        if text is None or not text.strip():
            file.drop(line, "empty text", [*fields.values()])
            continue
        labels = _labels(file, line, fields.get(columns[1])) if file.labeled else ()
        if labels is not None:
            yield Example(line, [], [], text, labels=labels)


def _columns(file: File, line: int, names: list[Any]) -> tuple[Any, Any]:
    """Return the names of the text and of the label; choosing one may determine the other."""
    texts = _chosen(names, file.text_column, TEXT_NAMES)
    labels = _chosen(names, file.label_column, LABEL_NAMES) if file.labeled else [None]
    if not texts and (file.label_column is not None or not file.labeled):
        texts = [name for name in names if name not in labels]
    if not labels and file.text_column is not None:
        labels = [name for name in names if name not in texts]
    if len(texts) != 1 or len(labels) != 1 or texts == labels:
        wrong = "not exactly one column for the texts and one for the labels"
        fix = "choose with `--data.text_column` and `--data.label_column`, by name or position"
        raise file.error(line, wrong, names, fix)
    label = f", label in column {labels[0]}" if file.labeled else ""
    file.notes.append(f"text in column {texts[0]}{label} (of {listed(map(str, names))})")
    return texts[0], labels[0]


def _chosen(names: list[Any], column: Column, usual: Sequence[str]) -> list[Any]:
    """Return the name of the chosen column, or all usual ones."""
    if column is None:
        return [name for name in names if str(name).strip().lower() in usual]
    if isinstance(column, int) and -len(names) <= column < len(names):
        return [names[column]]
    return [name for name in names if name == column]


def _labels(file: File, line: int, value: Any) -> tuple[str, ...] | None:
    """Return the labels of a text, or None if the record is dropped."""
    separator = file.label_separator
    if isinstance(value, list) and separator is None:
        raise file.error(line, "list of labels", value, "give any `--data.label_separator`")
    parts = value if isinstance(value, list) else [value]
    if separator is not None and isinstance(value, str):
        parts = value.split(separator) if value.strip() else []
    if not {*map(type, parts)} <= {str, int, float, type(None)}:
        wrong = "label that is neither string nor number"
        raise file.error(line, wrong, value, "choose `--data.label_column`")
    labels = ["" if part is None else str(part).strip() for part in parts]
    if not all(labels):
        file.drop(line, "empty label", value)
        return None
    return tuple(dict.fromkeys(labels))


def tag_examples(file: File, records: Iterable[Record]) -> Iterator[Example]:
    """Yield the sentences of records.

    A record has `tokens` with `tags`, `ner_tags` or `labels`, or a `text` with `spans`, `entities`
    or `label`. A span is [start, end, type] or {"start", "end", "label"} in characters, end
    exclusive; or the spans are {type: {text: [[start, end], ...]}} with inclusive ends, as in
    CLUENER. Texts are split into words, tagged in IOB2.

    Raises:
        CorpusError: A record is malformed.
    """
    key = file.text_column if isinstance(file.text_column, str) else "tokens"
    names = [file.label_column] if isinstance(file.label_column, str) else _TAG_NAMES
    for line, fields in records:
        values = [fields.get(name) for name in names]
        found = [value for value in values if isinstance(value, list | tuple | dict)]
        if not fields.keys() & {key, "text"} or (file.labeled and not found):
            fix = 'write {"tokens", "tags"} or {"text", "spans"}, or choose `--data.tag_column`'
            raise file.error(line, "no tokens and tags, or text and spans", [*fields], fix)
        make = _from_tokens if key in fields else _from_text
        yield make(
            file, line, fields.get(key, fields.get("text")), found[0] if file.labeled else []
        )


def _from_tokens(file: File, line: int, tokens: Any, tags: Any) -> Example:
    for values in (tokens, tags) if file.labeled else (tokens,):
        if not isinstance(values, list | tuple) or not values or {*map(type, values)} != {str}:
            raise file.error(line, "no list of strings", values, "write names of tags, not numbers")
        if "" in values:
            raise file.error(line, "empty string", values, "remove or fill it")
    if file.labeled and len(tags) != len(tokens):
        wrong = f"{len(tokens)} tokens but {len(tags)} tags"
        raise file.error(line, wrong, [tokens, tags], "give each token one tag")
    return Example(line, [*tokens], [*tags])


def _from_text(file: File, line: int, text: Any, labels: Any) -> Example:
    if not isinstance(text, str) or not text.strip():
        raise file.error(line, "no text", text, "write a text or remove the line")
    offsets = tokenize(text, "word")
    tokens = [text[start:end] for start, end in offsets]
    aligned = [_align(file, line, span, text, offsets) for span in _spans(labels)]
    tags = encode(_disjoint(file, line, aligned), len(tokens), "IOB2") if file.labeled else []
    return Example(line, tokens, tags, text, offsets)


def _spans(value: Any) -> list[Any]:
    """Return spans as a list, also those of CLUENER: {type: {text: [[start, end], ...]}}."""
    if not isinstance(value, dict):
        return list(value)
    found: list[Any] = []
    for kind, texts in value.items():
        for places in texts.values() if isinstance(texts, dict) else [texts]:
            try:
                found += [[start, end + 1, kind] for start, end in places]  # inclusive ends
            except (TypeError, ValueError):
                found.append({kind: texts})  # is refused as a span
    return found


def _align(file: File, line: int, span: Any, text: str, offsets: list[tuple[int, int]]) -> Span:
    """Return a span of characters as a span of tokens."""
    start, end, kind = _characters(file, line, span, text)
    first = bisect_right(offsets, start, key=lambda place: place[1])
    behind = bisect_left(offsets, end, key=lambda place: place[0])
    if first == behind:
        raise file.error(line, "span of nothing but spaces", span, "remove it")
    left, right = offsets[first][0], offsets[behind - 1][1]
    if left < start or right > end:
        wrong = f"span {_shown(text, start, end)} begins or ends inside a token"
        fix = f"make it {_shown(text, left, right)}"
        file.settle(line, wrong, span, fix, "span widened to whole tokens")
    return Span(first, behind, kind)


def _characters(file: File, line: int, span: Any, text: str) -> tuple[int, int, str]:
    values = span
    if isinstance(span, dict):
        values = [span.get("start"), span.get("end"), span.get("label", span.get("type"))]
    match values:
        case [int(start), int(end), str(kind)] if 0 <= start < end <= len(text) and kind:
            return start, end, kind
    raise file.error(line, "not a span in this text", span, "write [start, end, type]")


def _shown(text: str, start: int, end: int) -> str:
    return repr(text[start:end] if end - start <= 60 else f"{text[start : start + 57]}...")


def _disjoint(file: File, line: int, aligned: list[Span]) -> list[Span]:
    """Drop overlapping spans; the longest is kept, or the first of equally long ones."""
    kept: list[Span] = []
    owner: dict[int, Span] = {}
    for span in sorted(aligned, key=lambda span: (span.start - span.end, span.start)):
        # A longer span covers at least one end of a shorter one.
        rival = owner.get(span.start) or owner.get(span.end - 1)
        if rival is None:
            kept.append(span)
            owner.update(dict.fromkeys(range(span.start, span.end), span))
        else:
            how = "of overlapping spans the longer kept"
            file.settle(line, "overlapping spans", [rival, span], "keep one of them", how)
    return kept
