"""Kinds of bombs by name, and what writes and reads their files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from residense import ClassificationDataModule, TaggingDataModule
from residense.data.batches import Encoded
from residense.data.module import TextDataModule

LONG = "x" * 1_000_000

Reader = Callable[[], object]


def prepared(data: TextDataModule) -> None:
    """All that happens between a file and the first batch."""
    data.check()
    data.setup("fit")
    assert data.vocabulary is not None
    for corpus in data.splits.values():
        Encoded(corpus, data.vocabulary)


def tags(path: Path, **options: Any) -> Reader:
    return lambda: prepared(TaggingDataModule(str(path), **options))


def texts(path: Path, **options: Any) -> Reader:
    return lambda: prepared(ClassificationDataModule(str(path), **options))


def vectors(path: Path) -> Reader:
    return tags(written(path.parent, "train.conll", "a O\nb B-X\n\n" * 30), vectors=str(path))


Bomb = Callable[[Path], Reader]


class Bombs(dict[str, Bomb]):
    """Kinds of bombs by name."""

    def add(self, bomb: Bomb) -> Bomb:
        """Add a kind of bomb, as a decorator."""
        self[bomb.__name__] = bomb
        return bomb


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
