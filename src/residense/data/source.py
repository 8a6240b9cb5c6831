"""Where a corpus comes from: files, the hub, memory or a generator; all splits as arrays, cached."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from residense.data.cache import Arrays, cached, fingerprint, pack_strings, unpack_strings
from residense.data.corpus import Corpus
from residense.data.readers import (
    CorpusError,
    Example,
    File,
    examples_of,
    find_splits,
    known_splits,
    load_splits,
    read,
    read_rows,
)
from residense.data.synthetic import Synthetic
from residense.data.synthetic_texts import SyntheticTexts
from residense.messages import listed

HUB = "hf:"
Splits = Mapping[str, Iterable[Any]]


class Loaded(NamedTuple):
    """The splits of a corpus, as arrays.

    Attributes:
        splits: Corpora by the names "train", "validation" and "test".
        notes: What to tell the user about how the corpus was read.
        scheme: Tag scheme that the tags are converted to.
        unit: What a token of a text to classify is.
        subwords: State of the tokenizer, if there is one.
    """

    splits: dict[str, Corpus]
    notes: list[str]
    scheme: str = "none"
    unit: str = "word"
    subwords: str = ""


Build = Callable[[dict[str, list[Example]], list[str]], Loaded]


@dataclass
class Source:
    """A corpus as the user names it.

    Args:
        path: A folder or file, hf:ID for a data set of the hub, or the splits themselves: a `datasets.DatasetDict`,
            or lists of (tokens, tags) or (text, label). None for the synthetic corpus.
        synthetic: The synthetic corpus.
        pattern: Glob that the file names in the folder must match.
        options: How to read the files.
    """

    path: str | Splits | None
    synthetic: Synthetic | SyntheticTexts
    pattern: str | None
    options: File

    def load(self, build: Build, key: Sequence[object] = (), files: Sequence[Path] = ()) -> Loaded:
        """Return the splits, from the cache if they are there.

        Args:
            build: Makes them from the examples of each split and notes about them.
            key: Options of `build`.
            files: Files that `build` reads.
        """
        if not self._is_cached():
            return build(*self.read())
        contents = [*files]
        names: list[object] = [repr(self.synthetic), version("faker")]
        for split, path in self.paths().items():
            parts = sorted(path.rglob("*")) if path.is_dir() else [path]
            contents += filter(Path.is_file, parts)
            names.append([split, *(str(part.relative_to(path.parent)) for part in parts)])
        hashed = fingerprint(contents, [names, repr(self.options), key])
        return unpack(cached(hashed, lambda: pack(build(*self.read()))))

    def _is_cached(self) -> bool:
        """Return whether the corpus is generated or in files; `datasets` has a cache of its own."""
        named = isinstance(self.path, str)
        return self.path is None or (named and not str(self.path).startswith(HUB))

    def paths(self) -> dict[str, Path]:
        """Return the file or folder of each split, if the corpus is in files."""
        if not self._is_cached() or self.path is None:
            return {}
        return find_splits(Path(str(self.path)), self.options.kind, self.pattern)

    def read(self) -> tuple[dict[str, list[Example]], list[str]]:
        """Return the examples of each split, and how they were read.

        Raises:
            CorpusError: Something is missing or malformed.
        """
        splits = {}
        notes = []
        for split, (file, rows) in self._files().items():
            examples = read(file) if rows is None else examples_of(file, read_rows(file, rows))
            labels = sorted({label for example in examples for label in example.labels})
            file.notes.append(f"{len(examples):,} {file.kind}")
            if labels:
                file.notes.append(f"{len(labels)} labels: {listed(labels)}")
            splits[split] = examples
            notes.append(str(file))
        if self.path is None:
            notes = [f"{self.synthetic}: generated, not a real corpus"]
        return splits, notes

    def _files(self) -> dict[str, tuple[File, Iterable[Any] | None]]:
        """Return the file of each split, and its rows if they are not in the file."""
        if self.path is None:
            name = Path("the synthetic corpus")
            rows: Splits = self.synthetic.splits()
        elif not isinstance(self.path, str):
            name = Path("data.path")
            rows = known_splits(name, self.path)
        elif self.path.startswith(HUB):
            name = Path(self.path.removeprefix(HUB))
            rows = load_splits(str(name))
        else:
            return {split: (self._file(path), None) for split, path in self.paths().items()}
        return {split: (self._file(name), found) for split, found in rows.items()}

    def _file(self, path: Path) -> File:
        return replace(self.options, path=path, notes=[], repairs=Counter())

    def unlabeled(self) -> list[Example]:
        """Return texts to predict: the lines of a .txt file or of standard input, or the examples of a corpus file."""
        path = Path("standard input" if self.path in (None, "-") else str(self.path))
        file = replace(self._file(path), labeled=False)
        if self.path in (None, "-"):
            lines = file.decode(sys.stdin.buffer.read()).split("\n")
        elif file.suffix == "txt":
            lines = file.lines()
        elif path.is_file():
            return read(file)
        else:
            fix = "give --data.path a file or --data.text a text"
            raise CorpusError(path, None, "no such file", None, fix)
        lines = lines[:-1] if lines[-1] == "" else lines  # the last line end begins no line
        return [
            Example(number, [], [], line.removesuffix("\r")) for number, line in enumerate(lines, 1)
        ]


def pack(loaded: Loaded) -> Arrays:
    """Return everything as arrays, to be stored."""
    read = (loaded.scheme, loaded.unit, loaded.subwords)
    arrays: Arrays = {"notes": pack_strings(loaded.notes), "read": pack_strings(read)}
    for name, corpus in loaded.splits.items():
        arrays |= {f"{name}/{key}": value for key, value in corpus.arrays().items()}
    return arrays


def unpack(arrays: Arrays) -> Loaded:
    """Return what `pack` was given."""
    splits: dict[str, Arrays] = {}
    for key, value in arrays.items():
        name, slash, field = key.partition("/")
        if slash:
            splits.setdefault(name, {})[field] = value
    corpora = {name: Corpus.from_arrays(fields) for name, fields in splits.items()}
    return Loaded(corpora, unpack_strings(arrays["notes"]), *unpack_strings(arrays["read"]))
