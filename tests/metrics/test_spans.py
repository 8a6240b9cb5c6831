"""Span F1 against seqeval, on many random sequences, and on several processes."""

import json
import random
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from seqeval.metrics import v1
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities, Token
from torch import Tensor

from residense.metrics import Mode, SpanF1, counts, per_type
from residense.tags import SCHEMES, Span, encode, improper, spans

TYPES = ("LOC", "PER.NOM", "creative-work")
LETTERS = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
STRICT: dict[str, type[Token]] = {
    "IOB1": IOB1,
    "IOB2": IOB2,
    "IOBES": IOBES,
    "BILOU": BILOU,
    "BMES": IOBES,
}
# seqeval's default mode knows IOBES only, its strict mode knows no M.
DEFAULT_LETTERS, STRICT_LETTERS = str.maketrans("MLU", "IES"), str.maketrans("M", "I")
MODES: tuple[Mode, ...] = ("conll", "strict")

Tags = list[list[str]]
Found = list[list[Span]]

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_mode = pytest.mark.parametrize("mode", MODES)


def labels_of(scheme: str) -> list[str]:
    return ["O", *(f"{letter}-{kind}" for kind in TYPES for letter in LETTERS[scheme])]


def proper_tags(source: random.Random, length: int, scheme: str) -> list[str]:
    """Tags of random spans, close together and often of one type."""
    found, position = [], source.choice((0, 0, 1))
    while position < length:
        end = min(length, position + source.choice((1, 1, 2, 3)))
        found.append(Span(position, end, source.choice(TYPES)))
        position = end + source.choice((0, 0, 1, 2))
    return encode(found, length, scheme)


def corrupt(
    source: random.Random, tags: Sequence[str], labels: Sequence[str], share: float
) -> list[str]:
    return [source.choice(labels) if source.random() < share else tag for tag in tags]


@cache
def sequences(scheme: str, count: int = 10_000) -> tuple[Tags, Tags]:
    """Gold and predicted tags: one half noise with many hits, the other mostly proper."""
    source, labels = random.Random(17), labels_of(scheme)
    gold, predicted = [], []
    for number in range(count):
        length = source.randint(1, 9)
        if number % 2:
            right = source.choices(labels, k=length)
            guess = corrupt(source, right, labels, 0.2)
        else:
            right = corrupt(source, proper_tags(source, length, scheme), labels, 0.03)
            other = corrupt(source, proper_tags(source, length, scheme), labels, 0.03)
            guess = other if number % 8 == 0 else corrupt(source, right, labels, 0.15)
        gold.append(right)
        predicted.append(guess)
    return gold, predicted


def ids(tags: Tags, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tag ids, with junk at padded positions, and the mask."""
    place, length = {label: i for i, label in enumerate(labels)}, max(map(len, tags), default=0)
    rows = [[place[tag] for tag in row] + [len(labels) - 1] * (length - len(row)) for row in tags]
    mask = [[True] * len(row) + [False] * (length - len(row)) for row in tags]
    return torch.tensor(rows).view(len(tags), length), torch.tensor(mask).view(len(tags), length)


def feed(metric: SpanF1, gold: Tags, predicted: Tags, labels: Sequence[str]) -> None:
    (right, mask), (guess, _) = ids(gold, labels), ids(predicted, labels)
    metric.update(guess, right, mask)


def measured(
    gold: Tags, predicted: Tags, labels: Sequence[str], scheme: str, mode: Mode = "conll"
) -> SpanF1:
    metric = SpanF1(labels, scheme, mode)
    feed(metric, gold, predicted, labels)
    return metric


def translated(tags: Tags, letters: dict[int, int]) -> Tags:
    return [[tag[0].translate(letters) + tag[1:] for tag in row] for row in tags]


def seqeval_scores(
    gold: Tags, predicted: Tags, scheme: str, mode: Mode, average: str | None
) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if mode == "conll":
            right, guess = translated(gold, DEFAULT_LETTERS), translated(predicted, DEFAULT_LETTERS)
            return precision_recall_fscore_support(right, guess, average=average)
        right, guess = translated(gold, STRICT_LETTERS), translated(predicted, STRICT_LETTERS)
        return v1.precision_recall_fscore_support(
            right,
            guess,
            average=average,
            scheme=STRICT[scheme],
            entities_true=strict_entities(scheme, "gold", tuple(map(tuple, right))),
            entities_pred=strict_entities(scheme, "predicted", tuple(map(tuple, guess))),
        )


@cache
def strict_entities(scheme: str, role: str, tags: tuple[tuple[str, ...], ...]) -> Entities:
    return Entities([list(row) for row in tags], STRICT[scheme])


def strict_spans(tags: Tags, scheme: str, role: str) -> Found:
    found = strict_entities(scheme, role, tuple(map(tuple, translated(tags, STRICT_LETTERS))))
    return [
        [Span(entity.start, entity.end, entity.tag) for entity in row] for row in found.entities
    ]


def slow_confusion(gold: Found, predicted: Found, types: Sequence[str]) -> list[list[int]]:
    """The confusion matrix, span by span."""
    place, none = {kind: i for i, kind in enumerate(types)}, len(types)
    cells = [[0] * (none + 1) for _ in range(none + 1)]
    for right, guess in zip(gold, predicted, strict=True):
        expected = {span[:2]: span.type for span in right}
        found = {span[:2]: span.type for span in guess}
        for bounds in expected.keys() | found.keys():
            cells[place.get(expected.get(bounds, ""), none)][
                place.get(found.get(bounds, ""), none)
            ] += 1
    return cells


@every_scheme
@every_mode
def test_scores_are_those_of_seqeval(scheme: str, mode: Mode) -> None:
    gold, predicted = sequences(scheme)
    metric = measured(gold, predicted, labels_of(scheme), scheme, mode)
    values = metric.compute()
    precision, recall, f1, support = seqeval_scores(gold, predicted, scheme, mode, None)
    table = per_type(metric.types, values["confusion"])
    assert list(table) == list(TYPES)
    assert [row["precision"] for row in table.values()] == precision.tolist()
    assert [row["recall"] for row in table.values()] == recall.tolist()
    # seqeval combines two rounded ratios, so its last digit may differ
    assert [row["f1"] for row in table.values()] == pytest.approx(f1.tolist(), rel=1e-14)
    assert [row["support"] for row in table.values()] == support.tolist()
    precision, recall, f1, _ = seqeval_scores(gold, predicted, scheme, mode, "micro")
    assert (values["precision"].item(), values["recall"].item()) == (precision, recall)
    assert values["f1"].item() == pytest.approx(f1, rel=1e-14)
    assert 0.2 < f1 < 0.9
    _, _, f1, _ = seqeval_scores(gold, predicted, scheme, mode, "macro")
    assert values["macro_f1"].item() == pytest.approx(f1, rel=1e-14)


@every_scheme
@every_mode
def test_confusion_counts_spans_with_the_same_bounds(scheme: str, mode: Mode) -> None:
    gold, predicted = sequences(scheme)
    metric = measured(gold, predicted, labels_of(scheme), scheme, mode)
    if mode == "conll":
        found = [spans(tags) for tags in gold], [spans(tags) for tags in predicted]
    else:
        found = strict_spans(gold, scheme, "gold"), strict_spans(predicted, scheme, "predicted")
    cells = slow_confusion(*found, metric.types)
    assert metric.compute()["confusion"].tolist() == cells
    assert all(cell for row in cells[:-1] for cell in row)
    hits, guessed, expected = (column.tolist() for column in counts(metric.confusion))
    assert sum(hits) == sum(len(set(a) & set(b)) for a, b in zip(*found, strict=True))
    assert (sum(expected), sum(guessed)) == tuple(sum(map(len, side)) for side in found)


@every_scheme
def test_improper_and_accuracy_are_counted_as_by_hand(scheme: str) -> None:
    gold, predicted = sequences(scheme)
    values = measured(gold, predicted, labels_of(scheme), scheme).compute()
    bad = sum(bool(improper(tags, scheme)) for tags in predicted)
    assert values["improper"].item() == bad / len(predicted)
    assert 0 < bad < len(predicted)
    pairs = [
        (a, b)
        for right, guess in zip(gold, predicted, strict=True)
        for a, b in zip(right, guess, strict=True)
    ]
    assert values["accuracy"].item() == sum(a == b for a, b in pairs) / len(pairs)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@every_scheme
@every_mode
def test_batches_their_order_and_padding_do_not_matter(scheme: str, mode: Mode) -> None:
    gold, predicted = (side[:600] for side in sequences(scheme))
    labels = labels_of(scheme)
    expected = measured(gold, predicted, labels, scheme, mode).compute()
    source, order = random.Random(3), list(range(600))
    source.shuffle(order)
    metric, start = SpanF1(labels, scheme, mode), 0
    while start < len(order):
        chosen = order[start : start + source.randint(1, 70)]
        start += len(chosen)
        right, mask = ids([gold[i] for i in chosen], labels)
        guess, _ = ids([predicted[i] for i in chosen], labels)
        extra = source.randint(0, 4)
        pad = torch.randint(len(labels), (2, len(chosen), extra))
        longer = torch.cat((mask, torch.zeros_like(pad[0], dtype=torch.bool)), 1)
        metric.update(torch.cat((guess, pad[0]), 1), torch.cat((right, pad[1]), 1), longer)
    assert_same(metric.compute(), expected)


def test_a_sentence_masked_as_a_whole_counts_for_nothing() -> None:
    gold, predicted = (side[:50] for side in sequences("IOBES"))
    labels = labels_of("IOBES")
    (right, mask), (guess, _) = ids(gold, labels), ids(predicted, labels)
    metric = SpanF1(labels, "IOBES")
    metric.update(guess, right, mask & (torch.arange(50) < 30)[:, None])
    assert_same(metric.compute(), measured(gold[:30], predicted[:30], labels, "IOBES").compute())


@every_mode
@pytest.mark.parametrize("shown", ["neither", "gold", "predicted"])
def test_nothing_found_or_nothing_to_find_scores_zero(mode: Mode, shown: str) -> None:
    spoken, silent = [["B-LOC", "I-LOC", "O"]], [["O", "O", "O"]]
    gold, predicted = (spoken if shown == side else silent for side in ("gold", "predicted"))
    metric = measured(gold, predicted, labels_of("IOB2"), "IOB2", mode)
    values = metric.compute()
    assert [values[name].item() for name in ("precision", "recall", "f1", "macro_f1")] == [0.0] * 4
    assert values["confusion"].sum() == (shown != "neither")
    assert all(row["f1"] == 0.0 for row in per_type(metric.types, values["confusion"]).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = precision_recall_fscore_support(gold, predicted, average="micro")
    assert expected[:3] == (0.0, 0.0, 0.0)


@every_mode
def test_a_type_that_is_predicted_but_never_right_lowers_the_macro_average(mode: Mode) -> None:
    gold, predicted = [["B-LOC", "I-LOC", "O", "O"]], [["B-LOC", "I-LOC", "O", "B-PER.NOM"]]
    values = measured(gold, predicted, labels_of("IOB2"), "IOB2", mode).compute()
    assert (
        values["macro_f1"].item()
        == seqeval_scores(gold, predicted, "IOB2", mode, "macro")[2]
        == 0.5
    )


def test_before_any_batch_all_scores_are_zero() -> None:
    metric = SpanF1(labels_of("IOBES"), "IOBES")
    metric.update(torch.zeros(0, 3).long(), torch.zeros(0, 3).long(), torch.zeros(0, 3).bool())
    assert all(not value.any() and value.isfinite().all() for value in metric.compute().values())


def test_reset_begins_anew() -> None:
    gold, predicted = sequences("IOBES")
    metric = measured(gold[:100], predicted[:100], labels_of("IOBES"), "IOBES")
    metric.reset()
    feed(metric, gold[100:200], predicted[100:200], labels_of("IOBES"))
    fresh = measured(gold[100:200], predicted[100:200], labels_of("IOBES"), "IOBES")
    assert_same(metric.compute(), fresh.compute())


def test_strict_mode_discards_what_conll_mode_repairs() -> None:
    gold, predicted = [["B-LOC", "E-LOC", "O"]], [["I-LOC", "E-LOC", "O"]]
    scores = {
        mode: measured(gold, predicted, labels_of("IOBES"), "IOBES", mode).compute()["f1"]
        for mode in MODES
    }
    assert scores == {"conll": 1.0, "strict": 0.0}


@every_mode
def test_without_a_scheme_f1_is_the_accuracy_of_tokens(mode: Mode) -> None:
    source, labels = random.Random(5), ["ADJ", "NN-SHORT", "O", "-LRB-", "B-PER"]
    gold = [source.choices(labels, k=source.randint(1, 9)) for _ in range(500)]
    predicted = [corrupt(source, tags, labels, 0.4) for tags in gold]
    metric = measured(gold, predicted, labels, "none", mode)
    values = metric.compute()
    pairs = [
        (a, b)
        for right, guess in zip(gold, predicted, strict=True)
        for a, b in zip(right, guess, strict=True)
    ]
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    assert [values[name].item() for name in ("precision", "recall", "f1", "accuracy")] == [
        accuracy
    ] * 4
    assert values["improper"] == 0
    cells = {
        (a, b): values["confusion"][metric.types.index(a), metric.types.index(b)]
        for a in labels
        for b in labels
    }
    assert cells == {(a, b): pairs.count((a, b)) for a in labels for b in labels}


# -- several processes -------------------------------------------------------------------------------------------------

WORKER = """
import json, sys
import torch
from residense.metrics import SpanF1

torch.set_num_threads(1)
store, rank, given = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
metric = SpanF1(given["labels"], given["scheme"])
for guess, right, mask in given["shares"][rank]:
    metric.update(torch.tensor(guess), torch.tensor(right), torch.tensor(mask))
print(json.dumps({name: value.tolist() for name, value in metric.compute().items()}))
torch.distributed.destroy_process_group()
"""


def shares(
    batches: Iterable[tuple[Tensor, Tensor, Tensor]], taken: set[int]
) -> list[list[list[Any]]]:
    split: tuple[list[list[Any]], list[list[Any]]] = ([], [])
    for number, batch in enumerate(batches):
        split[number in taken].append([tensor.tolist() for tensor in batch])
    return list(split)


def test_two_processes_with_uneven_shares_agree_with_one_to_the_last_digit(tmp_path: Path) -> None:
    gold, predicted = (side[:700] for side in sequences("IOBES"))
    labels, batches = labels_of("IOBES"), []
    for start in range(0, 700, 100):
        right, mask = ids(gold[start : start + 100], labels)
        batches.append((ids(predicted[start : start + 100], labels)[0], right, mask))
    given = tmp_path / "given.json"
    given.write_text(
        json.dumps({"labels": labels, "scheme": "IOBES", "shares": shares(batches, {1, 4})})
    )
    command = [sys.executable, "-c", WORKER, str(tmp_path / "store")]
    workers = [
        subprocess.Popen([*command, str(rank), str(given)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    alone = measured(gold, predicted, labels, "IOBES").compute()
    expected = {name: value.tolist() for name, value in alone.items()}
    assert [json.loads(output) for output in outputs] == [expected, expected]
