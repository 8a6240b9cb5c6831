"""Tokens to vectors: a word embedding, and a reading of the spelling for words never seen.

Shapes: B batch, L length, D width, U distinct spellings of the batch, C characters of the longest.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from residense.bounds import Positive, Share
from residense.data.vocabulary import PADDING, SPECIAL, UNKNOWN, Vocabulary


class CharCNN(nn.Module):
    """Spelling by convolution and maximum over the characters   (Ma & Hovy 2016, arXiv 1603.01354).

    Args:
        num_chars: rows of the character table.
        dim: width of a character.
        out_dim: width written.
        kernel: characters seen at once, odd.
    """

    def __init__(
        self, num_chars: int, dim: Positive = 30, out_dim: Positive = 50, kernel: Positive = 3
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(
                f"kernel must be odd so that each character is the centre of its window; got {kernel}"
            )
        self.out_dim = out_dim
        self.table = nn.Embedding(num_chars, dim, padding_idx=PADDING)
        self.conv = nn.Conv1d(dim, out_dim, kernel, padding=kernel // 2)

    def forward(self, chars: Tensor) -> Tensor:
        """Read `chars` [U, C] to [U, out_dim]."""
        features = self.conv(self.table(chars).mT).mT
        return features.masked_fill((chars == PADDING)[..., None], float("-inf")).amax(1).relu()


class CharLSTM(nn.Module):
    """Spelling by a bidirectional LSTM over the characters   (Lample et al. 2016, arXiv 1603.01360).

    Args:
        num_chars: rows of the character table.
        dim: width of a character.
        out_dim: width written, even.
    """

    def __init__(self, num_chars: int, dim: Positive = 30, out_dim: Positive = 50):
        super().__init__()
        if out_dim % 2:
            raise ValueError(
                f"a bidirectional LSTM writes half of its width in each direction; {out_dim} is odd"
            )
        self.out_dim = out_dim
        self.table = nn.Embedding(num_chars, dim, padding_idx=PADDING)
        self.lstm = nn.LSTM(dim, out_dim // 2, batch_first=True, bidirectional=True)

    def forward(self, chars: Tensor) -> Tensor:
        """Read `chars` [U, C] to [U, out_dim]."""
        lengths = (chars != PADDING).sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(chars), lengths, batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        return torch.cat((last[0], last[1]), -1)


class LockedDropout(nn.Module):
    """Drops the same features at all tokens of a sentence   (Gal & Ghahramani 2016, arXiv 1512.05287).

    Args:
        p: probability that a feature is set to zero.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        keep = torch.rand(len(x), 1, x.shape[-1], device=x.device) < 1 - self.p
        return x * keep / (1 - self.p)


class Embeddings(nn.Module):
    """Words and their spelling side by side: [B, L, dim + spelling width].

    Args:
        vocabulary: of the task.
        dim: width of a word; null takes that of the vector file, or 100 without one.
        freeze: keep pretrained vectors as they are; words that the file lacks are learned all the same.
        characters: what reads the spelling, each distinct word of a batch once; null for words alone.
        word_dropout: probability that a word is replaced by the unknown word, so that this one is learned too.
        dropout: probability that a feature is set to zero, at all tokens of a sentence.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        dim: Positive | None = None,
        freeze: bool = False,
        characters: Callable[[int], CharCNN | CharLSTM] | None = CharCNN,
        word_dropout: Share = 0.05,
        dropout: Share = 0.3,
    ):
        super().__init__()
        if dim and vocabulary.vector_dim not in (0, dim):
            raise ValueError(
                f"embeddings.dim is {dim}, but the vector file has width {vocabulary.vector_dim}: leave dim out"
            )
        dim = dim or vocabulary.vector_dim or 100
        self.table = nn.Embedding(vocabulary.num_words, dim, padding_idx=PADDING)
        bound = (3 / dim) ** 0.5
        nn.init.uniform_(self.table.weight, -bound, bound)
        nn.init.zeros_(self.table.weight.data[PADDING])
        self.word_dropout = word_dropout
        self.num_frozen = vocabulary.num_vectors if freeze else 0
        self.characters = characters(vocabulary.num_chars) if characters else None
        self.dropout = LockedDropout(dropout)
        self.out_dim = dim + (self.characters.out_dim if self.characters else 0)

    def load_vectors(self, matrix: Tensor) -> None:
        """Start the first words of the vocabulary from `matrix` [words, dim]."""
        with torch.no_grad():
            self.table.weight[SPECIAL : SPECIAL + len(matrix)] = matrix

    def forward(self, words: Tensor, chars: Tensor, spelling: Tensor) -> Tensor:
        """Embed `words` [B, L] and the `spelling` [B, L] of each, a row of `chars` [U, C]: [B, L, out_dim]."""
        if self.training and self.word_dropout:
            dropped = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = words.masked_fill(dropped & (words != PADDING), UNKNOWN)
        x = self.table(words)
        if self.num_frozen:
            frozen = (words >= SPECIAL) & (words < SPECIAL + self.num_frozen)
            x = torch.where(frozen[..., None], x.detach(), x)
        if self.characters:
            x = torch.cat((x, self.characters(chars)[spelling]), -1)
        return self.dropout(x)
