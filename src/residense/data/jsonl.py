"""JSON lines: a sentence on each line, either as tokens and tags or as a text and character spans."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from residense.data.sentences import CorpusError, Faults, Reading, Sentence, no_sentence
from residense.data.tokenize import tokenize
from residense.tags import Span, encode

_TAG_KEYS = ("tags", "ner_tags", "labels")


def read_jsonl(faults: Faults, lines: Sequence[str], labelled: bool) -> Reading:
    """Return the sentences of a JSON lines file.

    A line is {"tokens": [...], "tags": [...]} or {"text": ..., "spans": [...]}, a span being {"start", "end",
    "label"} or [start, end, label] in characters, end exclusive. Texts are split into words, tagged in IOB2.

    Args:
        faults: The file and whether to repair it.
        lines: Its lines; blank ones are skipped.
        labelled: Whether there must be tags or spans; they are not read otherwise.
    """
    sentences = list(_sentences(faults, lines, labelled))
    if not sentences:
        raise no_sentence(faults.path)
    kind = "tokens" if sentences[0].text is None else "texts"
    notes = [
        f"{faults.path.name}: JSON lines of {kind}, {'labelled' if labelled else 'tags not read'}"
    ]
    return Reading(faults.path, sentences, "jsonl", repairs=faults.repairs, notes=notes)


def _sentences(faults: Faults, lines: Sequence[str], labelled: bool) -> Iterator[Sentence]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _record(faults, number, line)
        if "tokens" in record:
            yield _from_tokens(faults, number, record, labelled)
        else:
            yield _from_text(faults, number, record, labelled)


def _record(faults: Faults, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            faults.path, number, f"not JSON ({error})", line, "correct the line"
        ) from None
    if not isinstance(record, dict) or not record.keys() & {"tokens", "text"}:
        fix = 'write {"tokens": [...], "tags": [...]} or {"text": "...", "spans": [...]}'
        raise CorpusError(faults.path, number, "no object with tokens or text", record, fix)
    return record


def _from_tokens(faults: Faults, number: int, record: dict[str, Any], labelled: bool) -> Sentence:
    tokens = _strings(faults, number, "tokens", record["tokens"])
    if not labelled:
        return Sentence(tokens, [], number)
    key = next((key for key in _TAG_KEYS if key in record), None)
    if key is None:
        raise CorpusError(
            faults.path, number, "no tags", record, f"add one of {', '.join(_TAG_KEYS)}"
        )
    tags = _strings(faults, number, key, record[key])
    if len(tags) != len(tokens):
        wrong = f"{len(tokens)} tokens but {len(tags)} {key}"
        raise CorpusError(faults.path, number, wrong, record, "give each token one tag")
    return Sentence(tokens, tags, number)


def _strings(faults: Faults, number: int, key: str, values: Any) -> list[str]:
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(value, str) for value in values)
    ):
        fix = "write a list of one or more strings (tag names, not numbers)"
        raise CorpusError(faults.path, number, f"{key} are no list of strings", values, fix)
    if "" in values:
        raise CorpusError(
            faults.path, number, f"empty string in {key}", values, "remove or fill it"
        )
    return [faults.encodable(number, value) for value in values]


def _from_text(faults: Faults, number: int, record: dict[str, Any], labelled: bool) -> Sentence:
    text = record["text"]
    if not isinstance(text, str) or not text.strip():
        raise CorpusError(
            faults.path, number, "blank or no text", text, "write a text or drop the line"
        )
    text = faults.encodable(number, text)
    offsets = tokenize(text, "word")
    tokens = [text[start:end] for start, end in offsets]
    if not labelled:
        return Sentence(tokens, [], number, text, offsets)
    if not isinstance(record.get("spans"), list):
        raise CorpusError(
            faults.path, number, "no list of spans", record, 'add "spans", [] for none'
        )
    aligned = [_align(faults, number, span, text, offsets) for span in record["spans"]]
    tags = encode(_disjoint(faults, number, aligned), len(tokens), "IOB2")
    return Sentence(tokens, tags, number, text, offsets)


def _align(
    faults: Faults, number: int, span: Any, text: str, offsets: list[tuple[int, int]]
) -> Span:
    """Return a span of characters as a span of tokens."""
    start, end, type_ = _characters(faults, number, span, text)
    first = bisect_right(offsets, start, key=lambda place: place[1])
    behind = bisect_left(offsets, end, key=lambda place: place[0])
    if first == behind:
        raise CorpusError(faults.path, number, "span of nothing but spaces", span, "remove it")
    aligned = Span(first, behind, type_)
    left, right = offsets[first][0], offsets[behind - 1][1]
    if left < start or right > end:
        wrong = f"span {_shown(text, start, end)} begins or ends inside a token"
        fix = f"make it {_shown(text, left, right)}"
        return faults.settle(number, wrong, span, fix, aligned, "span widened to whole tokens")
    return aligned


def _shown(text: str, start: int, end: int) -> str:
    return repr(text[start:end] if end - start <= 60 else f"{text[start : start + 57]}...")


def _characters(faults: Faults, number: int, span: Any, text: str) -> tuple[int, int, str]:
    values: Any = span
    if isinstance(span, dict):
        values = [span.get("start"), span.get("end"), span.get("label", span.get("type"))]
    match values:
        case [int(start), int(end), str(label)] if 0 <= start < end <= len(text) and label:
            return start, end, faults.encodable(number, label)
    fix = f"write start, end (exclusive, at most {len(text)}) and label"
    raise CorpusError(faults.path, number, "not a span in this text", span, fix)


def _disjoint(faults: Faults, number: int, aligned: list[Span]) -> list[Span]:
    """Return the spans without overlaps; the longer one stays, or the first of two equally long ones."""
    kept: list[Span] = []
    owner: dict[int, Span] = {}
    for span in sorted(aligned, key=lambda span: (span.start - span.end, span.start)):
        rival = owner.get(span.start) or owner.get(
            span.end - 1
        )  # a longer span covers one end of a shorter one
        if rival is None:
            kept.append(span)
            owner.update(dict.fromkeys(range(span.start, span.end), span))
        else:
            how = "of overlapping spans the longer kept"
            faults.settle(
                number, "overlapping spans", [rival, span], "keep one of them", rival, how
            )
    return kept
