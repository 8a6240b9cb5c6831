"""JSON lines, tables and columns that nest or grow without measure."""

import json
from pathlib import Path

from .table import Bombs, Reader, tags, texts, written

BOMBS = Bombs()


@BOMBS.add
def json_nested_lists(folder: Path) -> Reader:
    return tags(written(folder, "train.jsonl", '{"tokens": ' + "[" * 1_000_000))


@BOMBS.add
def json_nested_objects(folder: Path) -> Reader:
    return texts(written(folder, "train.jsonl", '{"text":' * 500_000 + "1" + "}" * 500_000))


@BOMBS.add
def json_a_number_of_a_million_digits(folder: Path) -> Reader:
    return tags(written(folder, "train.jsonl", f'{{"tokens": ["a"], "tags": [{"9" * 1_000_000}]}}'))


@BOMBS.add
def json_a_text_of_numbers(folder: Path) -> Reader:
    return texts(
        written(folder, "train.jsonl", f'{{"text": "a b", "label": {"9" * 1_000_000}}}\n' * 2)
    )


@BOMBS.add
def json_very_many_spans(folder: Path) -> Reader:
    spans = [[2 * i, 2 * i + 1, "X"] for i in range(50_000)]
    return tags(
        written(
            folder, "train.jsonl", f"{json.dumps({'text': 'a ' * 50_000, 'spans': spans})}\n" * 3
        )
    )


@BOMBS.add
def json_spans_that_overlap(folder: Path) -> Reader:
    spans = [[i, 100_000 - i, "X"] for i in range(0, 40_000)]
    line = json.dumps({"text": "ab" * 50_000, "spans": spans})
    return tags(written(folder, "train.jsonl", f"{line}\n" * 3), repair=True)


@BOMBS.add
def json_very_many_keys(folder: Path) -> Reader:
    return texts(
        written(folder, "train.jsonl", json.dumps({f"k{i}": "v" for i in range(200_000)}) + "\n")
    )


@BOMBS.add
def json_other_keys_in_each_line(folder: Path) -> Reader:
    lines = (json.dumps({"text": "a b", "label": "x", f"k{i}": 1}) for i in range(50_000))
    return texts(written(folder, "train.jsonl", "\n".join(lines)))


@BOMBS.add
def csv_an_open_quote(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", 'text,label\n"' + "a b,x\n" * 500_000))


@BOMBS.add
def csv_quotes_alone(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", '"' * 3_000_001))


@BOMBS.add
def csv_very_many_columns(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", ("a," * 300_000 + "\n") * 3))


@BOMBS.add
def csv_labels_that_hardly_repeat(folder: Path) -> Reader:
    rows = "".join(f"some text {i},{i % 30_000}\n" for i in range(60_000))
    return texts(written(folder, "train.csv", f"text,label\n{rows}"), label_column="label")


@BOMBS.add
def csv_a_cell_of_megabytes(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", f"text,label\n{'a b ' * 250_000},x\na b,y\n"))


@BOMBS.add
def csv_carriage_returns(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", "\r" * 3_000_000))


@BOMBS.add
def columns_very_many(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", ("a " * 500_000 + "O\n") * 3))


@BOMBS.add
def columns_a_token_of_megabytes(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", f"{'a' * 4_000_000} B-X\nb O\n\n" * 2))


@BOMBS.add
def columns_a_sentence_of_very_many_tokens(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", ("a O\n" * 150_000 + "b B-X\n\n") * 3))


@BOMBS.add
def columns_an_entity_of_very_many_tokens(folder: Path) -> Reader:
    return tags(
        written(folder, "train.conll", ("b B-X\n" + "a I-X\n" * 100_000 + "\n") * 3), max_length=1
    )


@BOMBS.add
def columns_another_tag_for_each_token(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", "".join(f"a B-{i}\n\n" for i in range(50_000))))


@BOMBS.add
def texts_of_half_an_address(folder: Path) -> Reader:
    parts = (
        "www." + "a." * 50_000,
        "a@" * 50_000,
        "a.b-" * 25_000 + "@",
        "e" + "\u0301" * 100_000,
        "n't" * 50_000,
    )
    return texts(
        written(
            folder, "train.tsv", "".join(f"{part}\t{i % 2}\n" for i, part in enumerate(parts * 2))
        )
    )
