"""Split texts to classify into words, characters or subwords, and truncate long ones."""

import json
import re
from collections.abc import Iterable
from math import inf, prod
from pathlib import Path
from typing import Any, Literal

from residense.data.tokenize import tokenize
from residense.errors import UsageError

Unit = Literal["word", "char", "subword"]
Truncate = Literal["head", "head+tail"]
_CHARACTERS = re.compile(r"\s+|\S")


class Units:
    """Split texts into tokens.

    Args:
        unit: `word` (single characters in Chinese and Japanese), `char` (spaces are tokens too), or
            `subword`.
        subwords: State of the tokenizer, for `subword`.
    """

    def __init__(self, unit: str, subwords: str = ""):
        self.unit = unit
        self._tokenizer: Any = None
        if unit == "subword":
            from tokenizers import Tokenizer

            try:
                growth = _growth(subwords)
                self._tokenizer = Tokenizer.from_str(subwords)
            except Exception:  # `tokenizers` raises errors of many kinds
                growth = inf
            if growth > 100:
                raise UsageError("data.subwords: no tokenizer, or one that makes texts ever longer")

    def cut(self, text: str) -> tuple[list[str], list[tuple[int, int]]]:
        """Return the tokens of a text, and the start and end of each."""
        if self._tokenizer is not None:
            found = self._tokenizer.encode(text)
            return found.tokens, found.offsets
        if self.unit == "char":
            places = [match.span() for match in _CHARACTERS.finditer(text)]
            return [" " if text[start].isspace() else text[start] for start, _ in places], places
        places = tokenize(text, self.unit)
        return [text[start:end] for start, end in places], places


def _growth(subwords: str) -> int:
    """Return how many times longer a tokenizer, which may come from a checkpoint, makes a text."""
    lengths: list[int] = []

    def visit(fields: dict[str, Any]) -> None:
        if fields.get("type") == "Replace":
            lengths.append(len(str(fields.get("content"))))

    json.loads(subwords, object_hook=visit)
    return prod(max(1, length) for length in lengths)


def subword_tokenizer(texts: Iterable[str], source: int | str) -> str:
    """Return the state of a tokenizer.

    Subwords are merged byte pairs (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) in lower
    case.

    Args:
        texts: The training texts.
        source: Number of subwords to train, or a tokenizer.json to read.

    Raises:
        UsageError: The file cannot be read, or there are fewer than 100 subwords.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if isinstance(source, str):
        if not Path(source).is_file():
            fix = "give a tokenizer.json, or a number of subwords to train"
            raise UsageError(f"data.subwords: no file {source}; {fix}")
        try:
            return Tokenizer.from_file(source).to_str()
        except Exception as error:  # `tokenizers` raises errors of many kinds
            raise UsageError(f"data.subwords: {source} is not a tokenizer.json ({error})") from None
    if source < 100:
        raise UsageError(f"data.subwords: at least 100 subwords are needed; got {source}")
    tokenizer: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    steps = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    options: Any = {"vocab_size": source, "special_tokens": ["[UNK]"], "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(**options))
    return tokenizer.to_str()


def kept(length: int, limit: int, truncate: str) -> list[int]:
    """Return the indices of the tokens to keep: the head, or a quarter of it and the tail.

    In reviews and news the tail tells more than the middle (Sun et al. 2019,
    https://arxiv.org/abs/1905.05583).
    """
    if length <= limit:
        return list(range(length))
    head = limit if truncate == "head" else limit // 4
    return [*range(head), *range(length - limit + head, length)]
