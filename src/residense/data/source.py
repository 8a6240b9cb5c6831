"""Where a corpus comes from: files, the hub, memory or a generator; all splits as arrays, cached."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from residense.data.cache import Arrays, cached, fingerprint, pack_strings, unpack_strings
from residense.data.corpus import Corpus
from residense.data.readers import read
from residense.data.readers.file import STDIN, Example, File
from residense.data.readers.hub import known_splits, load_splits
from residense.data.readers.splits import find_splits
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
        is_stored = isinstance(self.path, str) and not self.path.startswith(HUB)
        if self.path is not None and not is_stored:  # `datasets` has a cache of its own
            return build(*self.read())
        contents = [*filter(Path.is_file, files)]
        names: list[object] = [repr(self.synthetic), version("faker")]
        for split, file in self.files().items() if is_stored else ():
            parts = sorted(file.path.rglob("*")) if file.path.is_dir() else [file.path]
            contents += filter(Path.is_file, parts)
            names.append([split, *(str(part.relative_to(file.path.parent)) for part in parts)])
        hashed = fingerprint(contents, [names, repr(self.options), key])
        return unpack(cached(hashed, lambda: pack(build(*self.read()))))

    def read(self) -> tuple[dict[str, list[Example]], list[str]]:
        """Return the examples of each split, and how they were read.

        Raises:
            CorpusError: Something is missing or malformed.
        """
        files = self.files()
        splits = {split: read(file) for split, file in files.items()}
        if self.path is None:
            return splits, [f"{self.synthetic}: generated, not a real corpus"]
        for file, examples in zip(files.values(), splits.values(), strict=True):
            what = "sentences" if file.kind == "tags" else "texts"
            file.notes.append(f"{len(examples):,} {what}")
            labels = sorted({label for example in examples for label in example.labels})
            if labels:
                file.notes.append(f"{len(labels)} labels: {listed(labels)}")
        return splits, [str(file) for file in files.values()]

    def files(self) -> dict[str, File]:
        """Return the file of each split."""
        if self.path is None:
            path = Path("the synthetic corpus")
            rows: Splits = self.synthetic.splits()
        elif not isinstance(self.path, str):
            path = Path("data.path")
            rows = known_splits(path, self.path)
        elif self.path.startswith(HUB):
            path = Path(self.path.removeprefix(HUB))
            rows = load_splits(str(path))
        else:
            paths = find_splits(Path(self.path), self.options.kind, self.pattern)
            return {split: self._file(path) for split, path in paths.items()}
        return {split: self._file(path, found) for split, found in rows.items()}

    def _file(self, path: Path, rows: Iterable[Any] | None = None) -> File:
        return replace(self.options, path=path, rows=rows, notes=[], repairs=Counter())

    def unlabeled(self, texts: Sequence[str] | None) -> list[Example]:
        """Return examples to predict: texts, lines of a .txt file or of standard input, or those of a corpus file."""
        if texts is not None:
            return [Example(number, [], [], text) for number, text in enumerate(texts, 1)]
        path = STDIN if self.path in (None, "-") else Path(str(self.path))
        file = replace(self._file(path), labeled=False)
        if path != STDIN and not path.is_file():
            raise file.error(
                None, "no such file", None, "give --data.path a file or --data.text a text"
            )
        if path != STDIN and file.suffix != "txt":
            return read(file)
        lines = file.lines()
        last = len(lines) - (lines[-1] == "")  # the last line end begins no line
        return [Example(number, [], [], line) for number, line in enumerate(lines[:last], 1)]


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
