"""Embeddings: distinct words encoded once, frozen vectors, and dropout."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from residense.nn.embeddings import (
    PADDING,
    SPECIAL,
    UNKNOWN,
    CharCNN,
    CharLSTM,
    Embeddings,
    LockedDropout,
    TableSizes,
)

SENTENCES = [
    "Ada met Ada Lovelace in Turin",
    "she met nobody",
    "Turin",
    "an extraordinarily long word met Ada in in in Turin",
]
ENCODERS: dict[str, Callable[[int], CharCNN | CharLSTM]] = {
    "cnn": CharCNN,
    "wide cnn": partial(CharCNN, kernel=5),
    "lstm": CharLSTM,
}
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


class Batch(NamedTuple):
    """What embeddings read, and the mask."""

    words: Tensor
    char_ids: Tensor
    char_rows: Tensor
    mask: Tensor


class Lexicon:
    """The words and characters of the sentences, those with pretrained vectors first."""

    def __init__(self, vectors: Sequence[str] = (), vector_dim: int = 0):
        read = {word for text in SENTENCES for word in text.split()}
        self.words = [*vectors, *sorted(read - set(vectors))]
        self.chars = sorted({char for word in self.words for char in word})
        self.sizes = TableSizes(
            len(self.words) + SPECIAL, len(self.chars) + SPECIAL, len(vectors), vector_dim
        )

    def word_id(self, word: str) -> int:
        return SPECIAL + self.words.index(word)

    def char_ids(self, word: str) -> list[int]:
        return [SPECIAL + self.chars.index(char) for char in word]

    def batch(self) -> Batch:
        """All sentences; each distinct word has one row of characters."""
        distinct = sorted({word for text in SENTENCES for word in text.split()})
        spelled = [torch.tensor(self.char_ids(word)) for word in distinct]
        char_ids = nn.utils.rnn.pad_sequence(spelled, batch_first=True, padding_value=PADDING)
        tokens = [text.split() for text in SENTENCES]
        rows = [torch.tensor([distinct.index(word) for word in words]) for words in tokens]
        ids = [torch.tensor([self.word_id(word) for word in words]) for words in tokens]
        words = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PADDING)
        char_rows = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return Batch(words, char_ids, char_rows, words != PADDING)


def embed(embeddings: Embeddings, batch: Batch) -> Tensor:
    return embeddings(batch.words, batch.char_ids, batch.char_rows)


@every_encoder
def test_characters_of_distinct_words_are_encoded_once(encoder: str) -> None:
    known = Lexicon()
    torch.manual_seed(0)
    embeddings = Embeddings(known.sizes, dim=7, characters=ENCODERS[encoder]).eval()
    given = known.batch()
    found = embed(embeddings, given)
    assert found.shape == (*given.mask.shape, embeddings.out_dim)
    assert len(given.char_ids) < given.mask.sum()
    assert embeddings.characters is not None
    for row, text in zip(found, SENTENCES, strict=True):
        for vector, word in zip(row, text.split(), strict=False):
            spelling = embeddings.characters(torch.tensor([known.char_ids(word)]))[0]
            form = embeddings.table.weight[known.word_id(word)]
            torch.testing.assert_close(vector, torch.cat((form, spelling)))


@every_encoder
@pytest.mark.parametrize("extra", [1, 9])
def test_padding_of_characters_does_not_matter(encoder: str, extra: int) -> None:
    torch.manual_seed(0)
    module = ENCODERS[encoder](20)
    chars = torch.tensor([[3, 4, 5, 6], [7, 0, 0, 0], [8, 9, 0, 0]])
    with torch.no_grad():  # not even if padding had a vector
        module.table.weight[PADDING] = 100.0 if encoder == "lstm" else 0.0
    found = module(nn.functional.pad(chars, (0, extra)))
    torch.testing.assert_close(found, module(chars))
    for row, spelling in zip(found, chars, strict=True):
        torch.testing.assert_close(row, module(spelling[None, spelling != PADDING])[0])
    assert found.shape == (3, module.out_dim)


def test_the_character_convolution_is_the_maximum_over_windows() -> None:
    torch.manual_seed(0)
    module = CharCNN(20, dim=4, out_dim=6)
    spelling = torch.tensor([3, 4, 5, 6])
    x = nn.functional.pad(module.table(spelling), (0, 0, 1, 1))
    assert module.conv.bias is not None
    windows = [
        torch.einsum("odk,kd->o", module.conv.weight, x[t : t + 3]) + module.conv.bias
        for t in range(4)
    ]
    expected = torch.stack(windows).amax(0).clamp(min=0)
    torch.testing.assert_close(module(spelling[None])[0], expected)


@every_encoder
def test_the_order_of_characters_matters(encoder: str) -> None:
    module = ENCODERS[encoder](20)
    found = module(torch.tensor([[3, 4, 5], [5, 3, 4]]))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CharCNN(20, kernel=4),
            "kernel must be odd, to center windows on characters; got 4",
        ),
        (lambda: CharLSTM(20, out_dim=51), "a bidirectional LSTM needs an even out_dim; got 51"),
        (lambda: LockedDropout(1.5), r"dropout must be in \[0, 1\]; got 1.5"),
        (
            lambda: Embeddings(TableSizes(9, 9), word_dropout=-0.1),
            r"word_dropout must be in \[0, 1\]; got -0.1",
        ),
    ],
)
def test_impossible_sizes_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_without_characters_words_stand_alone() -> None:
    known = Lexicon()
    embeddings = Embeddings(known.sizes, dim=5, characters=None).eval()
    given = known.batch()
    assert embeddings.out_dim == 5
    assert torch.equal(embed(embeddings, given), embeddings.table.weight[given.words])


VECTORS = ["Turin", "met", "absent"]


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_vectors_get_no_gradient_and_other_words_do(freeze: bool) -> None:
    known = Lexicon(VECTORS, 3)
    embeddings = Embeddings(
        known.sizes, freeze=freeze, characters=None, word_dropout=0.0, dropout=0.0
    )
    given = known.batch()
    embed(embeddings, given).square().sum().backward()
    assert embeddings.table.weight.grad is not None
    touched = {
        known.words[i - SPECIAL]
        for i in embeddings.table.weight.grad.any(1).nonzero()[:, 0].tolist()
    }
    read = {word for text in SENTENCES for word in text.split()}
    assert touched == (read - set(VECTORS) if freeze else read)


def test_an_optimizer_moves_only_what_is_not_frozen() -> None:
    known = Lexicon(VECTORS, 3)
    embeddings = Embeddings(known.sizes, freeze=True, word_dropout=0.0, dropout=0.0)
    before = embeddings.table.weight.detach().clone()
    optimizer = torch.optim.AdamW(
        [{"params": list(embeddings.parameters()), "weight_decay": 0.0}], lr=0.1
    )
    for _ in range(3):
        optimizer.zero_grad()
        embed(embeddings, known.batch()).square().sum().backward()
        optimizer.step()
    same = (embeddings.table.weight == before).all(1)
    still = {known.words[i] for i in same[SPECIAL:].nonzero()[:, 0].tolist()}
    assert still == set(VECTORS)
    assert same[PADDING]


def test_vectors_land_on_their_words() -> None:
    known = Lexicon(VECTORS, 3)
    embeddings = Embeddings(known.sizes, characters=None).eval()
    matrix = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    others = embeddings.table.weight[SPECIAL + 3 :].clone()
    embeddings.load_vectors(matrix)
    assert embeddings.table.weight.shape == (known.sizes.words, 3)
    found = embeddings.table(torch.tensor([known.word_id(w) for w in ("met", "Turin", "absent")]))
    assert torch.equal(found, matrix[[1, 0, 2]])
    assert torch.equal(embeddings.table.weight[SPECIAL + 3 :], others)
    assert not embeddings.table.weight[PADDING].any()


@pytest.mark.parametrize(
    ("dim", "vector_dim", "width"),
    [(None, 0, 100), (None, 50, 50), (50, 50, 50), (7, 0, 7), (7, 50, None)],
)
def test_the_width_of_words_follows_the_vectors(
    dim: int | None, vector_dim: int, width: int | None
) -> None:
    known = Lexicon(VECTORS if vector_dim else [], vector_dim)
    if width is None:
        with pytest.raises(
            ValueError,
            match=r"embeddings\.dim is 7, but the vector file has width 50: leave dim out",
        ):
            Embeddings(known.sizes, dim)
    else:
        embeddings = Embeddings(known.sizes, dim, characters=None)
        assert embeddings.out_dim == embeddings.table.weight.shape[1] == width
        assert embeddings.table.weight.abs().max() <= (3 / width) ** 0.5


def test_words_are_dropped_in_training_only_and_become_the_unknown_word() -> None:
    known = Lexicon()
    embeddings = Embeddings(known.sizes, dim=4, characters=None, word_dropout=0.25, dropout=0.0)
    words = torch.arange(SPECIAL, known.sizes.words).repeat(2000, 1)
    words[:, 0] = PADDING
    char_ids = char_rows = torch.zeros(1, 1).long()
    torch.manual_seed(0)
    found, kept = embeddings(words, char_ids, char_rows), embeddings.table(words)
    unknown = embeddings.table.weight[UNKNOWN]
    dropped, same = (found == unknown).all(-1), (found == kept).all(-1)
    assert (dropped ^ same).all()
    assert not dropped[:, 0].any()
    assert dropped[:, 1:].float().mean().item() == pytest.approx(0.25, abs=0.015)
    assert torch.equal(embeddings.eval()(words, char_ids, char_rows), kept)


def test_locked_dropout_drops_the_same_features_of_all_tokens() -> None:
    torch.manual_seed(0)
    dropout = LockedDropout(0.3)
    x = torch.rand(40, 6, 200) + 1
    found = dropout(x)
    zero = found == 0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))
    assert not torch.equal(zero[0], zero[1])
    torch.testing.assert_close(found[~zero], (x / 0.7)[~zero])
    assert zero[:, 0].float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert dropout.eval()(x) is x
    assert LockedDropout(0.0)(x) is x


def test_embeddings_drop_whole_features_of_a_sentence() -> None:
    known = Lexicon()
    embeddings = Embeddings(known.sizes, dim=50, word_dropout=0.0, dropout=0.5)
    given = known.batch()
    given = given._replace(words=given.words.masked_fill(~given.mask, UNKNOWN))
    zero = embed(embeddings, given)[..., :50] == 0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))
    assert 0.2 < zero.float().mean() < 0.8
