"""Embeddings of words and their characters.

Shapes: B batch, L length, D width, U distinct words of the batch, C characters of the longest.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

PADDING = 0  # row of padding, in all tables
UNKNOWN = 1  # row of unknown words and characters
SPECIAL = 2  # number of special rows; words follow, those with pretrained vectors first


class TableSizes(NamedTuple):
    """Sizes of the embedding tables.

    Attributes:
        words: Number of words, including the special rows.
        chars: Number of characters, including the special rows.
        pretrained: Number of words with pretrained vectors.
        pretrained_dim: Width of the pretrained vectors; 0 if there are none.
    """

    words: int
    chars: int
    pretrained: int = 0
    pretrained_dim: int = 0


class CharCNN(nn.Module):
    """Convolution over the characters of a word with max pooling.

    Ma & Hovy 2016, arXiv 1603.01354.

    Args:
        num_chars: Number of characters, including the special rows.
        dim: Width of the character embeddings.
        out_dim: Width of the output.
        kernel: Kernel size in characters; odd.
    """

    def __init__(self, num_chars: int, dim: int = 30, out_dim: int = 50, kernel: int = 3):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, to center windows on characters; got {kernel}")
        self.out_dim = out_dim
        self.table = nn.Embedding(num_chars, dim, padding_idx=PADDING)
        self.conv = nn.Conv1d(dim, out_dim, kernel, padding=kernel // 2)

    def forward(self, char_ids: Tensor) -> Tensor:
        """Map `char_ids` [U, C] to [U, out_dim]."""
        features = self.conv(self.table(char_ids).mT).mT
        padding = (char_ids == PADDING)[..., None]
        return features.masked_fill(padding, float("-inf")).amax(1).relu()


class CharLSTM(nn.Module):
    """Bidirectional LSTM over the characters of a word (Lample et al. 2016, arXiv 1603.01360).

    Args:
        num_chars: Number of characters, including the special rows.
        dim: Width of the character embeddings.
        out_dim: Width of the output; even.
    """

    def __init__(self, num_chars: int, dim: int = 30, out_dim: int = 50):
        super().__init__()
        if out_dim % 2:
            raise ValueError(f"a bidirectional LSTM needs an even out_dim; got {out_dim}")
        self.out_dim = out_dim
        self.table = nn.Embedding(num_chars, dim, padding_idx=PADDING)
        self.lstm = nn.LSTM(dim, out_dim // 2, batch_first=True, bidirectional=True)

    def forward(self, char_ids: Tensor) -> Tensor:
        """Map `char_ids` [U, C] to [U, out_dim]."""
        lengths = (char_ids != PADDING).sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(char_ids), lengths, batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        return torch.cat((last[0], last[1]), -1)


class LockedDropout(nn.Module):
    """Dropout with one mask for all tokens of a sentence (arXiv 1512.05287).

    Args:
        p: Probability of zeroing a feature.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout must be in [0, 1]; got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        keep = torch.rand(len(x), 1, x.shape[-1], device=x.device) < 1 - self.p
        return x * keep / (1 - self.p)


class Embeddings(nn.Module):
    """Word embeddings concatenated with an encoding of the characters of each word.

    Args:
        sizes: Sizes of the embedding tables.
        dim: Width of the word embeddings; null for the width of the pretrained vectors, or 100
            without them.
        freeze: Whether to keep pretrained vectors fixed; the embeddings of other words are trained.
        characters: Encoder of the characters of a word; null for word embeddings alone.
        word_dropout: Probability of replacing a word by the unknown word, so that its embedding is
            trained.
        dropout: Probability of zeroing a feature at all tokens of a sentence.
    """

    def __init__(
        self,
        sizes: TableSizes,
        dim: int | None = None,
        freeze: bool = False,
        characters: Callable[[int], CharCNN | CharLSTM] | None = CharCNN,
        word_dropout: float = 0.05,
        dropout: float = 0.3,
    ):
        super().__init__()
        if dim and sizes.pretrained_dim not in (0, dim):
            raise ValueError(
                f"embeddings.dim is {dim}, but the vector file has width {sizes.pretrained_dim}: "
                "leave dim out"
            )
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"word_dropout must be in [0, 1]; got {word_dropout}")
        dim = dim or sizes.pretrained_dim or 100
        self.table = nn.Embedding(sizes.words, dim, padding_idx=PADDING)
        bound = (3 / dim) ** 0.5
        nn.init.uniform_(self.table.weight, -bound, bound)
        nn.init.zeros_(self.table.weight.data[PADDING])
        self.word_dropout = word_dropout
        self.num_frozen = sizes.pretrained if freeze else 0
        self.characters = characters(sizes.chars) if characters else None
        self.dropout = LockedDropout(dropout)
        self.out_dim = dim + (self.characters.out_dim if self.characters else 0)

    @torch.no_grad()
    def load_vectors(self, matrix: Tensor) -> None:
        """Copy pretrained vectors [words, dim] into the first rows of the word table."""
        self.table.weight[SPECIAL : SPECIAL + len(matrix)] = matrix

    def forward(self, words: Tensor, char_ids: Tensor, char_rows: Tensor) -> Tensor:
        """Embed words.

        Args:
            words: Word ids [B, L].
            char_ids: Character ids of each distinct word [U, C].
            char_rows: Row of `char_ids` of each word [B, L].

        Returns:
            The embeddings [B, L, out_dim].
        """
        if self.training and self.word_dropout:
            dropped = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = words.masked_fill(dropped & (words != PADDING), UNKNOWN)
        x = self.table(words)
        if self.num_frozen:
            frozen = (words >= SPECIAL) & (words < SPECIAL + self.num_frozen)
            x = torch.where(frozen[..., None], x.detach(), x)
        if self.characters:
            x = torch.cat((x, self.characters(char_ids)[char_rows]), -1)
        return self.dropout(x)
