"""What the tests of the readers share: a function that writes a file, and one that reads it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from residense.data.readers import read as read_file
from residense.data.readers.file import File, Kind


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def read(request: pytest.FixtureRequest) -> Callable[..., SimpleNamespace]:
    """Read a file as the module of the test says with `KIND`; the columns are the second and third argument."""
    kind: Kind = getattr(request.module, "KIND", "tags")

    def read(
        path: Path, text: int | str | None = None, label: int | str | None = None, **options: Any
    ) -> SimpleNamespace:
        file = File(path, kind, text, label, **options)
        examples = read_file(file)
        return SimpleNamespace(
            sentences=examples,
            counts=(len(examples), sum(len(example.tokens) for example in examples)),
            tokens=[token for example in examples for token in example.tokens],
            tags=[tag for example in examples for tag in example.tags],
            texts=[example.text for example in examples],
            labels=[example.labels for example in examples],
            lines=[example.line for example in examples],
            notes=str(file),
            repairs=dict(file.repairs),
        )

    return read
