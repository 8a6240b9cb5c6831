"""Cut texts to classify into words, characters or subwords, and shorten long ones."""

import json
import re
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, Literal

from residense.data.tokenize import tokenize
from residense.errors import UsageError

Unit = Literal["word", "char", "subword"]
Truncate = Literal["head", "head+tail"]
_CHARACTERS = re.compile(r"\s+|\S")


class Units:
    """Cut texts into tokens.

    Args:
        unit: `word` (single characters in Chinese and Japanese), `char` (spaces are tokens too), or `subword`.
        subwords: State of the tokenizer, for `subword`.
    """

    def __init__(self, unit: str, subwords: str = ""):
        self.unit, self._tokenizer = unit, None
        if unit == "subword":
            from tokenizers import Tokenizer

            if not _is_bounded(subwords):
                raise UsageError("data.subwords: no tokenizer, or one that makes texts ever longer")
            self._tokenizer: Any = Tokenizer.from_str(subwords)

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


def _is_bounded(subwords: str) -> bool:
    """Return whether a tokenizer, which may come from a checkpoint, makes texts at most 100 times longer."""
    try:
        return _growth(json.loads(subwords)["normalizer"]) <= 100
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _growth(normalizer: Any) -> int:
    """Return how much longer a text may become, as each replacement multiplies its length."""
    if isinstance(normalizer, dict):
        own = len(str(normalizer.get("content"))) if normalizer.get("type") == "Replace" else 1
        return max(1, own) * _growth([*normalizer.values()])
    return prod(map(_growth, normalizer)) if isinstance(normalizer, list) else 1


def subword_tokenizer(texts: Iterable[str], source: int | str) -> str:
    """Return the state of a tokenizer: trained on texts with so many subwords, or read from a tokenizer.json.

    Subwords are merged byte pairs (Sennrich et al. 2016, arXiv 1508.07909) in lower case.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if isinstance(source, str):
        if not Path(source).is_file():
            fix = "give a tokenizer.json, or a number of subwords to train"
            raise UsageError(f"data.subwords: no file {source}; {fix}")
        try:
            return Tokenizer.from_file(source).to_str()
        except Exception as error:  # the library raises what it likes
            raise UsageError(f"data.subwords: {source} is no tokenizer.json ({error})") from None
    if source < 100:
        raise UsageError(f"data.subwords: at least 100 subwords are needed; got {source}")
    tokenizer: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    steps = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer = trainers.BpeTrainer(vocab_size=source, special_tokens=["[UNK]"], show_progress=False)  # type: ignore[call-arg]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def kept(length: int, limit: int, truncate: str) -> list[int]:
    """Return the positions of the tokens to keep: the first, or a quarter from the head and the rest from the tail.

    The tail tells more than the middle in reviews and news   (Sun et al. 2019, arXiv 1905.05583).
    """
    if length <= limit:
        return list(range(length))
    head = limit if truncate == "head" else limit // 4
    return [*range(head), *range(length - limit + head, length)]
