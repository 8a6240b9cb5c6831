"""Scores of classes against scikit-learn and torchmetrics; losses against torch."""

from typing import Any

import pytest
import sklearn.metrics
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from residense.metrics import ClassScores
from residense.tasks.classification import class_loss, class_record

K = 5
peer: Any = sklearn.metrics


def draw(seed: int, texts: int = 200, sharpness: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    answer = torch.randint(K - 1, (texts,), generator=generator)  # the last class never occurs
    scores = sharpness * torch.randn(texts, K, generator=generator) + 1.5 * F.one_hot(answer, K)
    return scores, F.one_hot(answer, K).float()


def scored(
    probabilities: Tensor, target: Tensor, parts: int = 4, multi_label: bool = False
) -> ClassScores:
    metric = ClassScores(K, multi_label)
    for p, t in zip(probabilities.chunk(parts), target.chunk(parts), strict=True):
        metric.update(p, t)
    return metric


@pytest.mark.parametrize("seed", range(5))
def test_one_class_a_text(seed: int) -> None:
    scores, target = draw(seed)
    probabilities, answer = scores.softmax(-1), target.argmax(-1)
    metric = scored(probabilities, target)
    found = metric.compute()
    best = probabilities.argmax(-1)
    precision, recall, f1, support = peer.precision_recall_fscore_support(
        answer, best, labels=range(K), zero_division=0
    )
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert found[name].tolist() == pytest.approx(expected.tolist())
    assert found["accuracy"].item() == pytest.approx(peer.accuracy_score(answer, best))
    seen = sorted({*answer.tolist(), *best.tolist()})
    assert found["macro_f1"].item() == pytest.approx(float(f1[seen].mean()))
    assert (
        metric.confusion.tolist() == peer.confusion_matrix(answer, best, labels=range(K)).tolist()
    )
    assert metric.gold.tolist() == support.tolist()
    error = multiclass_calibration_error(probabilities, answer, K, n_bins=15)
    assert found["calibration_error"].item() == pytest.approx(error.item(), abs=1e-6)


def test_several_labels_a_text() -> None:
    scores, _ = draw(1)
    target = (torch.randn(200, K, generator=torch.Generator().manual_seed(2)) + scores > 1).float()
    target[:3] = 0
    found = scored(scores.sigmoid(), target, multi_label=True).compute()
    chosen = scores.sigmoid() > 0.5
    precision, recall, f1, _ = peer.precision_recall_fscore_support(target, chosen, zero_division=0)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert found[name].tolist() == pytest.approx(expected.tolist())
    assert found["accuracy"].item() == pytest.approx(peer.accuracy_score(target, chosen))


def test_the_parts_of_a_split_do_not_matter() -> None:
    scores, target = draw(3)
    one, many = (scored(scores.softmax(-1), target, parts).compute() for parts in (1, 50))
    assert all(torch.equal(one[name], many[name]) for name in one if name != "calibration_error")
    torch.testing.assert_close(one["calibration_error"], many["calibration_error"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_torch(smoothing: float) -> None:
    scores, target = draw(4)
    ones, weights = torch.ones(K), torch.rand(K)
    expected = F.cross_entropy(
        scores, target.argmax(-1), label_smoothing=smoothing, reduction="sum"
    )
    torch.testing.assert_close(class_loss(scores, target, ones, smoothing, False), expected)
    options = {"weight": weights, "label_smoothing": smoothing, "reduction": "sum"}
    expected = F.cross_entropy(scores, target.argmax(-1), **options)
    torch.testing.assert_close(class_loss(scores, target, weights, smoothing, False), expected)
    expected = F.binary_cross_entropy_with_logits(scores, target, reduction="sum")
    torch.testing.assert_close(class_loss(scores, target, ones, 0.0, True), expected)


def test_tables_count_the_texts_of_all_processes() -> None:
    metric = ClassScores(3)
    target = torch.eye(3)
    metric.update(target, target)
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda tensor, group=None: [tensor, tensor]  # two with the same texts
    values, tables = metric.scores(["a", "b", "c"])
    assert values["accuracy"] == 1.0 and tables["support"] == 6
    assert [row["support"] for row in tables["types"].values()] == [2, 2, 2]
    assert tables["confusion"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_probabilities_that_are_not_numbers_are_counted() -> None:
    metric = ClassScores(2)
    metric.update(torch.full((1, 2), torch.nan), torch.tensor([[1.0, 0.0]]))
    assert metric.scores(["a", "b"])[1]["support"] == 1


def test_what_is_said_of_a_text() -> None:
    names = ["a", "b", "c"]
    one = class_record([0.2, 0.7, 0.1], names, False)
    assert one == {
        "label": "b",
        "probability": 0.7,
        "probabilities": {"a": 0.2, "b": 0.7, "c": 0.1},
    }
    assert class_record([0.6, 0.7, 0.1], names, True)["labels"] == ["a", "b"]
    assert class_record([0.1, 0.2, 0.1], names, True)["labels"] == []
