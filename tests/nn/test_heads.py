"""Tagging heads: losses against brute force and torch, and legal tags whatever the scores."""

import math
from collections.abc import Sequence
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.heads import CRF, Softmax, TaggingHead
from residense.tags import SCHEMES, improper, legal_transitions

LETTERS = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
LENGTHS = (4, 1, 3, 2)
HEADS = (CRF, Softmax)

every_head = pytest.mark.parametrize("kind", HEADS)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def labels_of(scheme: str, types: str = "AB") -> list[str]:
    return ["O", *(f"{letter}-{kind}" for kind in types for letter in LETTERS[scheme])]


def reading_emissions(kind: type[TaggingHead], labels: Sequence[str], scheme: str) -> TaggingHead:
    """A head whose input are the scores of its labels."""
    torch.manual_seed(0)
    head = kind(len(labels), legal_transitions(labels, scheme))
    with torch.no_grad():
        head.score.weight.copy_(torch.eye(len(labels)))
        head.score.bias.zero_()
        for name, parameter in head.named_parameters():
            if not name.startswith("score"):
                nn.init.normal_(parameter)
    return head


def sentences(width: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return scale * torch.randn(
        *mask.shape, width, generator=torch.Generator().manual_seed(seed)
    ), mask


def legal_paths(labels: Sequence[str], scheme: str, length: int) -> list[tuple[int, ...]]:
    every = product(range(len(labels)), repeat=length)
    return [path for path in every if not improper([labels[i] for i in path], scheme)]


def crf_score(head: TaggingHead, emissions: Tensor, path: Sequence[int]) -> float:
    assert isinstance(head, CRF)
    moved = sum(float(head.transitions[a, b]) for a, b in pairwise(path))
    emitted = sum(float(emissions[t, tag]) for t, tag in enumerate(path))
    return (
        float(head.start_transitions[path[0]])
        + emitted
        + moved
        + float(head.end_transitions[path[-1]])
    )


@torch.no_grad()
@every_scheme
def test_the_crf_loss_is_that_of_brute_force_over_legal_paths(scheme: str) -> None:
    labels = labels_of(scheme, "A")
    head = reading_emissions(CRF, labels, scheme)
    h, mask = sentences(len(labels))
    expected, tags = 0.0, torch.zeros_like(mask).long()
    for i, length in enumerate(LENGTHS):
        scores = {path: crf_score(head, h[i], path) for path in legal_paths(labels, scheme, length)}
        gold = list(scores)[7 * i % len(scores)]
        tags[i, :length] = torch.tensor(gold)
        expected += math.log(sum(map(math.exp, scores.values()))) - scores[gold]
    assert head.loss(h, tags, mask).item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
@every_scheme
def test_the_crf_decodes_the_best_legal_path_and_its_probabilities(scheme: str) -> None:
    labels = labels_of(scheme, "A")
    head = reading_emissions(CRF, labels, scheme)
    h, mask = sentences(len(labels), 2.0)
    tags, here, after = head.decode(h, mask)
    for i, length in enumerate(LENGTHS):
        weights = {
            path: math.exp(crf_score(head, h[i], path))
            for path in legal_paths(labels, scheme, length)
        }
        best, total = max(weights, key=weights.__getitem__), sum(weights.values())
        assert tuple(tags[i, :length].tolist()) == best
        assert (here[i, 0] + after[i, 1:length].sum()).exp().item() == pytest.approx(
            weights[best] / total, rel=1e-4
        )
        for t in range(length):
            through = sum(weight for path, weight in weights.items() if path[t] == best[t])
            assert here[i, t].exp().item() == pytest.approx(through / total, rel=1e-4)


@torch.no_grad()
@every_scheme
def test_the_softmax_decodes_the_best_legal_path(scheme: str) -> None:
    labels = labels_of(scheme, "A")
    head = reading_emissions(Softmax, labels, scheme)
    h, mask = sentences(len(labels), 2.0)
    tags, here, after = head.decode(h, mask)
    chances = h.log_softmax(-1)
    for i, length in enumerate(LENGTHS):
        paths = legal_paths(labels, scheme, length)
        best = max(paths, key=lambda path: sum(float(h[i, t, tag]) for t, tag in enumerate(path)))
        assert tuple(tags[i, :length].tolist()) == best
        expected = chances[i, torch.arange(length), torch.tensor(best)]
        torch.testing.assert_close(here[i, :length], expected)
        torch.testing.assert_close(after[i, :length], expected)


def test_the_softmax_loss_is_the_cross_entropy_of_real_tokens() -> None:
    labels = labels_of("IOBES")
    head = Softmax(5, legal_transitions(labels, "IOBES"))
    h, mask = sentences(5)
    tags = torch.randint(len(labels), mask.shape, generator=torch.Generator().manual_seed(1))
    scores = head.score(h).log_softmax(-1)
    expected = -sum(
        scores[i, t, tags[i, t]] for i, length in enumerate(LENGTHS) for t in range(length)
    )
    torch.testing.assert_close(head.loss(h, tags, mask), expected)
    torch.testing.assert_close(head.loss(h, tags.masked_fill(~mask, 0), mask), expected)


@every_head
@every_scheme
@pytest.mark.parametrize("size", [1e3, 1e8])
def test_an_illegal_sequence_is_never_decoded_whatever_the_scores(
    kind: type[TaggingHead], scheme: str, size: float
) -> None:
    labels = labels_of(scheme)
    head = reading_emissions(kind, labels, scheme)
    h, mask = sentences(len(labels))
    violations = []
    for seed in range(30):
        wanted = F.one_hot(
            torch.randint(len(labels), mask.shape, generator=torch.Generator().manual_seed(seed))
        )
        wanted = F.pad(wanted, (0, len(labels) - wanted.shape[-1]))
        tags, here, after = head.decode(h + size * wanted, mask)
        assert here[mask].isfinite().all()
        assert after[mask].isfinite().all()
        for row, tag_ids, length in zip(
            tags.tolist(), wanted.argmax(-1).tolist(), LENGTHS, strict=True
        ):
            assert improper([labels[i] for i in row[:length]], scheme) == []
            assert row[length:] == [0] * (len(row) - length)
            violations.append(improper([labels[i] for i in tag_ids[:length]], scheme))
    assert any(violations)
    assert not all(violations)


@every_head
def test_learned_scores_leave_illegal_transitions_forbidden(kind: type[TaggingHead]) -> None:
    labels = labels_of("IOBES", "A")
    head = reading_emissions(kind, labels, "IOBES")
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if not name.startswith("score"):
                parameter.fill_(100.0)
    h, mask = sentences(len(labels))
    assert (head.scores().transitions[labels.index("B-A"), labels.index("O")]) < -1000
    assert all(
        not improper([labels[i] for i in row[:n]], "IOBES")
        for row, n in zip(head.decode(h, mask)[0].tolist(), LENGTHS, strict=True)
    )


@every_head
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_losses_and_gradients_are_finite(kind: type[TaggingHead], scale: float) -> None:
    labels = labels_of("IOBES")
    head = reading_emissions(kind, labels, "IOBES")
    h, mask = sentences(len(labels), scale)
    h.requires_grad_()
    tags = torch.zeros_like(mask).long()
    loss = head.loss(h, tags, mask)
    loss.backward()
    assert loss > 0
    assert h.grad is not None
    assert h.grad.isfinite().all()
    assert h.grad[mask].any()
    assert not h.grad[~mask].any()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def in_log_space(head: TaggingHead, h: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of one sentence without padding, step by step in double precision, and its gradient."""
    h = h.double().requires_grad_()
    transitions, start, end = (scores.double().clamp(min=-1e9) for scores in head.scores())
    alpha = start + h[0]
    gold = start[tags[0]] + h[0, tags[0]] + end[tags[-1]]
    for t in range(1, len(h)):
        alpha = (alpha[:, None] + transitions).logsumexp(0) + h[t]
        gold = gold + transitions[tags[t - 1], tags[t]] + h[t, tags[t]]
    loss = (alpha + end).logsumexp(0) - gold
    return loss, torch.autograd.grad(loss, h)[0]


@pytest.mark.parametrize(("length", "lead"), [(256, 25.0), (256, 1.0), (2000, 3.0)])
def test_the_crf_loss_does_not_cancel_in_long_sentences(length: int, lead: float) -> None:
    labels = labels_of("IOBES")
    head = reading_emissions(CRF, labels, "IOBES")
    mask, tags = torch.ones(1, length, dtype=torch.bool), torch.zeros(1, length, dtype=torch.long)
    noise = torch.randn(1, length, len(labels), generator=torch.Generator().manual_seed(0))
    h = (noise + lead * F.one_hot(tags, len(labels))).requires_grad_()
    loss = head.loss(h, tags, mask)
    loss.backward()
    expected, gradient = in_log_space(head, h.detach()[0], tags[0])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert h.grad is not None
    torch.testing.assert_close(h.grad[0].double(), gradient, rtol=1e-5, atol=1e-7)


@every_head
def test_padding_does_not_change_losses_or_tags(kind: type[TaggingHead]) -> None:
    labels = labels_of("BMES")
    head = reading_emissions(kind, labels, "BMES")
    h, mask = sentences(len(labels))
    tags = head.decode(h, mask)[0]
    longer, real = F.pad(h, (0, 0, 0, 3), value=50.0), F.pad(mask, (0, 3))
    found = head.decode(longer, real)
    assert torch.equal(found[0], F.pad(tags, (0, 3)))
    junk = F.pad(tags, (0, 3), value=2).masked_fill(~real, 3)
    torch.testing.assert_close(head.loss(longer, junk, real), head.loss(h, tags, mask))
    alone = [
        head.loss(h[i : i + 1, :n], tags[i : i + 1, :n], mask[i : i + 1, :n])
        for i, n in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(head.loss(h, tags, mask), torch.stack(alone).sum())


@every_head
def test_without_a_scheme_every_sequence_is_legal(kind: type[TaggingHead]) -> None:
    labels = ["NOUN", "VERB", "O"]
    head = reading_emissions(kind, labels, "none")
    h, mask = sentences(3)
    wanted = F.one_hot(torch.randint(3, mask.shape, generator=torch.Generator().manual_seed(4)))
    tags = head.decode(h + 100 * wanted, mask)[0]
    assert torch.equal(tags[mask], wanted.argmax(-1)[mask])


@every_head
def test_legal_transitions_are_not_saved_with_the_weights(kind: type[TaggingHead]) -> None:
    names = set(kind(4, legal_transitions(labels_of("IOBES"), "IOBES")).state_dict())
    assert names == {"score.weight", "score.bias"} | (
        {"transitions", "start_transitions", "end_transitions"} if kind is CRF else set()
    )
