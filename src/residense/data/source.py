"""Load the splits of a corpus from files, the hub, memory or a generator, through the cache."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from residense.data.cache import Values, cached, fingerprint
from residense.data.corpus import Corpus
from residense.data.readers import read
from residense.data.readers.file import STDIN, Example, File
from residense.data.readers.hub import known_splits, load_splits
from residense.data.readers.splits import find_splits
from residense.data.synthetic import Synthetic
from residense.data.synthetic_texts import SyntheticTexts

HUB = "hf:"
Splits = Mapping[str, Iterable[Any]]


class Loaded(NamedTuple):
    """The splits of a corpus as arrays.

    Attributes:
        splits: Corpora by the names "train", "validation" and "test".
        notes: Messages on how the corpus was read.
        scheme: Tag scheme that the tags are converted to.
        unit: Unit of the tokens of texts to classify.
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
    """Location of a corpus.

    Args:
        path: A folder or file, hf:ID for a data set of the hub, or the splits themselves: a
            `datasets.DatasetDict`, or lists of (tokens, tags) or (text, label). None for the
            synthetic corpus.
        synthetic: The synthetic corpus.
        pattern: Glob that the file names in the folder must match.
        options: How to read the files.
    """

    path: str | Splits | None
    synthetic: Synthetic | SyntheticTexts
    pattern: str | None
    options: File

    def load(self, build: Build, key: Sequence[object] = (), files: Sequence[Path] = ()) -> Loaded:
        """Return the splits, from the cache if possible.

        Args:
            build: Makes the splits from the examples of each split and the notes on them.
            key: Options of `build`.
            files: Files that `build` reads.
        """
        is_stored = isinstance(self.path, str) and not self.path.startswith(HUB)
        if self.path is not None and not is_stored:  # `datasets` has its own cache
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
        """Return the examples of each split, and notes on how they were read.

        Raises:
            CorpusError: Something is missing or malformed.
        """
        files = self.files()
        splits = {split: read(file) for split, file in files.items()}
        if self.path is None:
            return splits, [f"{self.synthetic}: generated, not a real corpus"]
        named = (file for file in files.values() if file.notes or file.rows is None)
        return splits, [str(file) for file in named]

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
        """Return the examples to predict.

        Args:
            texts: The texts; None for the lines of a .txt file or of standard input, or for the
                examples of a corpus file.
        """
        if texts is None:
            is_file = isinstance(self.path, str) and self.path != "-"
            path = Path(str(self.path)) if is_file else STDIN
            file = replace(self._file(path), labeled=False)
            if path != STDIN and not path.is_file():
                fix = "give --data.path a file or --data.text a text"
                raise file.error(None, "no such file", None, fix)
            if path != STDIN and file.suffix != "txt":
                return read(file)
            texts = file.lines()
        return [Example(number, [], [], text) for number, text in enumerate(texts, 1)]


def pack(loaded: Loaded) -> Values:
    """Return the content as values to be cached."""
    values: Values = {"notes": loaded.notes, "read": [*loaded[2:]]}
    for name, corpus in loaded.splits.items():
        values |= {f"{name}/{key}": value for key, value in corpus.values().items()}
    return values


def unpack(values: Values) -> Loaded:
    """Invert `pack`."""
    names = dict.fromkeys(key.partition("/")[0] for key in values if "/" in key)
    keys = [field.name for field in fields(Corpus)]
    splits = {name: Corpus(**{key: values[f"{name}/{key}"] for key in keys}) for name in names}
    return Loaded(splits, values["notes"], *values["read"])
