"""The schedule at its corners and against the optimiser that it drives."""

import math
from unittest.mock import Mock

import pytest
import torch

from residense.data.vocabulary import Vocabulary
from residense.optim import Warmup
from residense.tasks.tagging import Tagger

TOTAL, WARMUP, RATE = 50, 0.2, 0.1
RISING = 10


def rates(
    decay: str, total: int = TOTAL, warmup: float = WARMUP, floor: float = 0.0, steps: int = 0
) -> list[float]:
    """The learning rate in front of each step, and after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = Warmup(optimizer, total, warmup, decay, floor)  # type: ignore[arg-type]
    found = []
    for _ in range((steps or total) + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_the_rate_rises_in_equal_steps_to_its_peak(decay: str, floor: float) -> None:
    expected = [RATE * (step + 1) / RISING for step in range(RISING)]
    found = rates(decay, floor=floor)
    assert found[: RISING + 1] == pytest.approx([*expected, RATE])
    assert max(found) == pytest.approx(RATE)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize(
    ("decay", "quarter", "middle", "end"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("linear", 0.75, 0.5, 0.0),
        ("cosine", (1 + math.sqrt(0.5)) / 2, 0.5, 0.0),
    ],
)
def test_the_rate_falls_as_it_is_told(
    decay: str, quarter: float, middle: float, end: float, floor: float
) -> None:
    found = rates(decay, floor=floor)
    chosen = [found[RISING], found[RISING + 10], found[RISING + 20], found[TOTAL]]
    assert chosen == pytest.approx(
        [RATE * (floor + (1 - floor) * share) for share in (1.0, quarter, middle, end)]
    )
    assert all(a >= b for a, b in zip(found[RISING:], found[RISING + 1 :], strict=False))


@pytest.mark.parametrize(("decay", "end"), [("constant", 1.0), ("linear", 0.1), ("cosine", 0.1)])
def test_the_rate_stays_once_the_run_is_over(decay: str, end: float) -> None:
    assert rates(decay, floor=0.1, steps=TOTAL + 20)[TOTAL:] == pytest.approx([RATE * end] * 21)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_shortest_runs_have_a_rate(decay: str) -> None:
    assert rates(decay, total=1)[0] == pytest.approx(RATE)
    assert rates(decay, warmup=0.0)[0] == pytest.approx(RATE)
    assert rates(decay, total=4, warmup=1.0)[:4] == pytest.approx(
        [RATE * share for share in (0.25, 0.5, 0.75, 1.0)]
    )


def test_groups_keep_their_own_rates_and_a_saved_schedule_goes_on() -> None:
    def fresh() -> tuple[torch.optim.Optimizer, Warmup]:
        groups = [
            {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.4)
        ]
        optimizer = torch.optim.SGD(groups)
        return optimizer, Warmup(optimizer, TOTAL)

    optimizer, schedule = fresh()
    for _ in range(17):
        optimizer.step()
        schedule.step()
    other_optimizer, other = fresh()
    other_optimizer.load_state_dict(optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    for _ in range(20):
        for o, s in ((optimizer, schedule), (other_optimizer, other)):
            o.step()
            s.step()
        rates_of = [[group["lr"] for group in o.param_groups] for o in (optimizer, other_optimizer)]
        assert rates_of[0] == rates_of[1]
        assert rates_of[0][1] == pytest.approx(4 * rates_of[0][0])


def test_scores_of_transitions_and_embeddings_do_not_decay() -> None:
    labels = ["O", "B-A", "I-A"]
    vocabulary = Vocabulary(words=["a"], chars=["a"], labels=labels, scheme="IOB2", unit="word")
    tagger = Tagger(vocabulary)
    tagger.trainer = trainer = Mock(estimated_stepping_batches=10)
    decayed, others = tagger.configure_optimizers()["optimizer"].param_groups  # type: ignore[index, call-overload]
    assert trainer and decayed["weight_decay"] > 0 and others["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in tagger.named_parameters()}
    kept = {names[id(parameter)] for parameter in others["params"]}
    assert {
        "head.transitions",
        "head.start_transitions",
        "head.end_transitions",
        "head.score.bias",
        "embeddings.table.weight",
    } <= kept
    assert "head.score.weight" in {names[id(parameter)] for parameter in decayed["params"]}
    assert len(names) == len(decayed["params"]) + len(others["params"])
