"""Batches: each sentence once, shares that partition them, and runs that go on where they stopped."""

import json
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residense.data.batches import Batch, BatchLoader, Encoded, plan, round_up
from residense.data.corpus import Corpus
from residense.data.vocabulary import Vocabulary

BUDGET = 40
WORDS = ["a", "Bee", "sea", "dog", "Zürich", "纽约", "x" * 40, "New", "York"]
TAGS = ["O", "S-LOC"]


def sentences(
    count: int = 60, longest: int = 12, seed: int = 0
) -> list[tuple[list[str], list[str]]]:
    source = random.Random(seed)
    sizes = [source.randint(1, longest) for _ in range(count)]
    return [(source.choices(WORDS, k=size), source.choices(TAGS, k=size)) for size in sizes]


def encoded(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Encoded:
    corpus = Corpus.build(pairs, "IOBES", 1000)
    return Encoded(corpus, Vocabulary.build(corpus, corpus.labels, "IOBES", 2))


DATA = encoded(sentences())


def loader(
    shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1, budget: int = BUDGET
) -> BatchLoader:
    return BatchLoader(DATA, budget, shuffle, seed, rank, world_size)


def indices(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_has_each_sentence_once(shuffle: bool) -> None:
    batches = loader(shuffle)
    for _ in range(3):
        seen = indices(batches)
        assert sorted(i for batch in seen for i in batch) == list(range(len(DATA.corpus)))
        assert len(seen) == len(batches)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=80),
    st.integers(1, 100),
    st.integers(0, 3) | st.none(),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_batches_keep_to_their_budget_but_for_single_sentences(
    sizes: list[int], budget: int, seed: int | None, noise: float
) -> None:
    lengths = np.array(sizes)
    rng = None if seed is None else np.random.default_rng(seed)
    batches = plan(lengths, budget, noise, rng)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(sizes)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in batches)
    assert [len(batch) for batch in batches if not len(batch)] == []
    assert len(batches) == len(plan(lengths, budget, noise))


def test_batches_are_no_smaller_than_they_must_be() -> None:
    lengths = DATA.corpus.lengths
    batches = plan(lengths, BUDGET)
    for batch, later in pairwise(batches):
        assert (len(batch) + 1) * lengths[later[0]] > BUDGET
        assert lengths[batch].max() <= lengths[later].min()


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_lengths_are_rounded_up_by_less_than_the_noise(noise: float) -> None:
    lengths = np.arange(1, 2000)
    rounded = round_up(lengths, noise)
    assert (rounded >= lengths).all() and (rounded <= (1 + noise) * lengths).all()
    assert (np.diff(rounded) >= 0).all()
    if noise == 1.0:
        assert set(rounded.tolist()) == {2**k for k in range(12)}


def test_noise_mixes_lengths_within_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 3000)

    def spread(noise: float) -> float:
        batches = plan(lengths, 512, noise, np.random.default_rng(1))
        return float(np.mean([np.std(lengths[batch]) for batch in batches]))

    assert spread(0.0) < 0.3 < 1.0 < spread(0.2) < spread(1.0)


def test_epochs_differ_and_a_seed_fixes_each() -> None:
    first, again, other = loader(), loader(), loader(seed=1)
    epochs = [indices(first) for _ in range(3)]
    assert [indices(again) for _ in range(3)] == epochs
    assert indices(other) not in epochs
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    content = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    assert content[0] != content[1]


def test_without_shuffling_epochs_are_the_same() -> None:
    batches = loader(shuffle=False)
    assert indices(batches) == indices(batches) == indices(loader(shuffle=False, seed=5))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 15, BUDGET, 10_000])
def test_shares_partition_each_global_batch(world_size: int, budget: int) -> None:
    whole = loader(budget=budget)
    shares = [loader(rank=rank, world_size=world_size, budget=budget) for rank in range(world_size)]
    empty = 0
    for _ in range(2):
        for together, *parts in zip(whole, *shares, strict=True):
            real = [part["index"].tolist() for part in parts if part["weight"].all()]
            assert sorted(i for part in real for i in part) == sorted(together["index"].tolist())
            assert max(map(len, real)) - min(map(len, real)) <= 1
            assert {part["num_tokens"] for part in parts} == {int(together["mask"].sum())}
            fillers = [part for part in parts if not part["weight"].all()]
            assert all(part["weight"].tolist() == [0.0] for part in fillers)
            assert all(part["mask"].any() for part in fillers)
            assert len(fillers) == max(0, world_size - len(together["index"]))
            empty += len(fillers)
    assert (empty > 0) == (world_size > 1 and budget < BUDGET)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_holds_what_a_naive_collation_gives(seed: int) -> None:
    pairs = sentences(seed=seed)
    corpus = Corpus.build(pairs, "IOBES", 1000)
    known = Vocabulary.build(corpus, corpus.labels, "IOBES", 4)
    for batch in BatchLoader(Encoded(corpus, known), BUDGET, shuffle=True, seed=seed):
        chosen = [pairs[i] for i in batch["index"].tolist()]
        length = max(len(tokens) for tokens, _ in chosen)
        for row, (tokens, tags) in enumerate(chosen):
            padding = [0] * (length - len(tokens))
            assert batch["words"][row].tolist() == known.word_ids(tokens).tolist() + padding
            assert batch["tags"][row].tolist() == known.label_ids(tags).tolist() + padding
            assert batch["mask"][row].tolist() == [True] * len(tokens) + [False] * len(padding)
            for token, place in zip(tokens, batch["char_rows"][row].tolist(), strict=False):
                spelling = batch["char_ids"][place]
                assert spelling[spelling > 0].tolist() == known.char_ids([token])[0].tolist()
        forms = {token for tokens, _ in chosen for token in tokens}
        widths = (batch["char_ids"] > 0).sum(1)
        assert batch["char_ids"].shape[1] == widths.max()
        assert len(forms) <= len(batch["char_ids"]) <= len(forms) + 1  # padding reads some spelling
        assert batch["weight"].tolist() == [1.0] * len(chosen)
        assert batch["num_tokens"] == sum(len(tokens) for tokens, _ in chosen)
        for name in ("words", "tags", "char_ids", "char_rows", "index"):
            assert batch[name].dtype == torch.int64


def test_a_corpus_without_tags_has_batches() -> None:
    corpus = Corpus.build([(["a", "dog"], []), (["b"], [])], "none", 10)
    (batch,) = BatchLoader(Encoded(corpus, Vocabulary.build(DATA.corpus, TAGS, "IOBES", 1)), BUDGET)
    assert batch["mask"].sum(1).tolist() == [1, 2]
    assert not batch["tags"].any()


@pytest.mark.parametrize("blank", [0, 1, 3, BUDGET + 1])
@pytest.mark.parametrize("others", [0, 2])
def test_blank_texts_do_no_harm(blank: int, others: int) -> None:
    corpus = Corpus.build([([], [])] * blank + [(["a", "dog"], [])] * others, "none", 10)
    batches = list(
        BatchLoader(Encoded(corpus, Vocabulary.build(DATA.corpus, TAGS, "IOBES", 1)), BUDGET)
    )
    assert sum(int(batch["mask"].sum()) for batch in batches) == 2 * others


def test_tags_that_the_model_does_not_know_are_refused() -> None:
    corpus = Corpus.build([(["a"], ["S-PER"])], "IOBES", 10)
    with pytest.raises(
        ValueError, match=r"labels that this model does not know: PER; it knows LOC, O"
    ):
        Encoded(corpus, Vocabulary.build(DATA.corpus, TAGS, "IOBES", 1))


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 5, -1, -2])
def test_a_resumed_loader_goes_on_with_the_batches_of_an_uninterrupted_one(
    shuffle: bool, epoch: int, taken: int
) -> None:
    whole, stopped = loader(shuffle), loader(shuffle)
    expected = [batch for _ in range(epoch + 2) for batch in whole]
    taken %= len(whole) + 1  # -1 is a whole epoch
    done = []
    for _ in range(epoch):
        done += list(stopped)
    running = iter(stopped)
    done += [next(running) for _ in range(taken)]
    state = json.loads(json.dumps(stopped.state()))
    resumed = loader(shuffle)
    resumed.resume(state)
    rest = []
    while len(done) + len(rest) < len(expected):
        epoch_rest = list(resumed)
        assert epoch_rest  # the end of an epoch is the start of the next
        rest += epoch_rest
    assert len(done) + len(rest) == len(expected)
    assert all(same(a, b) for a, b in zip([*done, *rest], expected, strict=True))


def test_a_state_that_was_loaded_can_be_saved_before_the_first_batch() -> None:
    first, second, third = loader(), loader(), loader()
    running = iter(first)
    for _ in range(3):
        next(running)
    second.resume(first.state())
    third.resume(second.state())
    assert indices(third) == indices(running)


def test_states_of_all_processes_agree() -> None:
    shares = [loader(rank=rank, world_size=3) for rank in range(3)]
    for share in shares:
        running = iter(share)
        for _ in range(4):
            next(running)
    assert (
        shares[0].state() == shares[1].state() == shares[2].state() == {"epoch": 0, "position": 4}
    )


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("world_size", [1, 2])
def test_each_token_of_an_optimiser_step_weighs_the_same(window: int, world_size: int) -> None:
    shares = [
        list(BatchLoader(DATA, BUDGET, True, 0, rank, world_size, window))
        for rank in range(world_size)
    ]
    assert len(shares[0]) % 5  # the last step has fewer batches
    for first in range(0, len(shares[0]), window):
        step = [share[first : first + window] for share in shares]
        found = [batch for batches in step for batch in batches]
        tokens = sum(int(batch["mask"].sum()) * int(batch["weight"].min()) for batch in found)
        assert [batch["divisor"] * window for batch in found] == pytest.approx(
            [tokens] * len(found)
        )
