"""Where a corpus comes from: files, the hub, or the generator; all splits as arrays, cached, and what was inferred."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from residense.data.cache import Arrays, cached, fingerprint, pack_strings, unpack_strings
from residense.data.columns import Column
from residense.data.corpus import Corpus
from residense.data.files import find_splits, text_lines
from residense.data.readers import CorpusError, Reading, read, read_dataset
from residense.data.synthetic import Synthetic
from residense.messages import listed
from residense.predictions import Text
from residense.tags import detect

HUB = "hf:"
RARE = 20  # texts of a class
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly however many there are


class Loaded(NamedTuple):
    """Splits of a corpus, a line for each thing inferred, and how it was read.

    Attributes:
        splits: by name.
        notes: what was inferred.
        scheme: tag scheme that the tags are converted to.
        unit: what a token of a text to classify is.
        subwords: state of its tokenizer, if it has one.
    """

    splits: dict[str, Corpus]
    notes: list[str]
    scheme: str = "none"
    unit: str = "word"
    subwords: str = ""


@dataclass
class Source:
    """A corpus as the user names it; see `TaggingDataModule` for the fields."""

    path: str | None
    synthetic: Synthetic
    files: str | None
    token_column: Column
    tag_column: Column
    encoding: str
    repair: bool

    def load(self, scheme: str, max_length: int) -> Loaded:
        """All splits, tags in `scheme` unless they are plain labels; from the cache if they are there."""
        if self.path is not None and self.path.startswith(HUB):  # `datasets` has a cache of its own
            return unpack(self._read(scheme, max_length))
        options = [
            self.token_column,
            self.tag_column,
            self.encoding,
            self.repair,
            scheme,
            max_length,
        ]
        if self.path is None:
            files = {}
            options += [asdict(self.synthetic), version("faker")]
        else:
            files = find_splits(Path(self.path), self.files)
        key = fingerprint(
            files.values(), [[(name, path.name) for name, path in files.items()], options]
        )
        return unpack(cached(key, lambda: self._read(scheme, max_length)))

    def _read(self, scheme: str, max_length: int) -> Arrays:
        where = "the embedded corpus: the tag column"
        if self.path is None:
            splits, texts = {name: [*pairs] for name, pairs in self.synthetic.splits().items()}, {}
            notes = [f"{self.synthetic}: generated sentences with personal data, not a real corpus"]
        else:
            readings = self._readings(self.path)
            notes = [note for reading in readings.values() for note in _notes(reading)]
            splits = {
                name: [(s.tokens, s.tags) for s in r.sentences] for name, r in readings.items()
            }
            texts = {name: _texts_of(reading) for name, reading in readings.items()}
            first = next(iter(readings.values()))
            where = f"{first.path}: column {first.tag_column}"
        found = detect(tags for pairs in splits.values() for _, tags in pairs)
        if scheme == "none" and found != "none":
            tags = sorted(
                {tag for pairs in splits.values() for _, tags in pairs for tag in tags} - {"O"}
            )
            wrong = f"{where} holds {found} tags ({listed(tags, 3)}), not plain labels such as parts of speech"
            raise ValueError(
                f"{wrong}; choose another with --data.tag_column, or another corpus with --data.path"
            )
        scheme = "none" if found == "none" else scheme
        notes.append(
            "tags are plain labels" if found == "none" else f"tags are {found}, trained as {scheme}"
        )
        built = {
            name: Corpus.build(pairs, scheme, max_length, texts.get(name, ()))
            for name, pairs in splits.items()
        }
        return pack(built, notes, scheme)

    def _readings(self, path: str) -> dict[str, Reading]:
        if path.startswith(HUB):
            return read_dataset(path.removeprefix(HUB))
        options = (self.token_column, self.tag_column, self.encoding, self.repair)
        readings: dict[str, Reading] = {}
        for name, file in find_splits(Path(path), self.files).items():
            readings[name] = read(file, *options, like=next(iter(readings.values()), None))
        return readings

    def texts(self, unit: str) -> Iterator[Text]:
        """Texts without tags: one a line of .txt or of standard input, or the sentences of a corpus file."""
        lines = text_lines(self.path, self.encoding, self.repair)
        if lines is not None:
            yield from (Text.raw(line, unit) for line in lines)
            return
        path = Path(str(self.path))
        if not path.is_file():
            raise CorpusError(
                path, None, "no such file", fix="give --data.path a file or --data.text a text"
            )
        reading = read(
            path, self.token_column, self.tag_column, self.encoding, self.repair, labelled=False
        )
        for sentence in reading.sentences:
            if sentence.text is not None and sentence.offsets is not None:
                yield Text(sentence.text, sentence.offsets)
            else:
                yield Text.joined(sentence.tokens, unit)


def complete(loaded: Loaded, shares: tuple[float, float, float], seed: int) -> Loaded:
    """Split off a validation split where there is none, and a test split where there is one file only.

    Args:
        loaded: the corpus.
        shares: of train, validation and test.
        seed: of the choice.

    Raises:
        ValueError: nothing would be left to train on.
    """
    splits = loaded.splits
    if "validation" in splits or "train" not in splits:
        return loaded
    wanted = {"validation": shares[1]} | ({"test": shares[2]} if len(splits) == 1 else {})
    corpus = splits["train"]
    place = _places(corpus, seed)
    made, start, taken = {}, 0.0, np.zeros(corpus.num_documents, bool)
    for name, share in wanted.items():
        chosen = (place >= start) & (place < start + share) & ~taken
        chosen[np.argmin(np.where(taken, np.inf, place))] |= not chosen.any()
        made[name], taken, start = (
            corpus.select(np.flatnonzero(chosen)),
            taken | chosen,
            start + share,
        )
    if taken.all():
        raise ValueError(
            f"{corpus.num_documents} sentences are too few to split; add files or sentences"
        )
    note = f"{' and '.join(made)} split off train by seed {seed}"
    rest = {name: corpus for name, corpus in splits.items() if name != "train"}
    train = corpus.select(np.flatnonzero(~taken))
    return loaded._replace(splits={"train": train, **made, **rest}, notes=[*loaded.notes, note])


def fold(loaded: Loaded, folds: int, number: int, seed: int) -> Loaded:
    """One of several splits of all texts: a fold to test on, the next one to validate on, the others to train on."""
    if [*loaded.splits] != ["train"]:
        found = ", ".join(loaded.splits)
        raise ValueError(
            f"data.folds: the corpus comes in splits of its own ({found}): use --data.folds 0"
        )
    corpus = loaded.splits["train"]
    place = np.floor(_places(corpus, seed) * folds).astype(int)
    test, validation = place == number, place == (number + 1) % folds
    chosen = {"train": ~test & ~validation, "validation": validation, "test": test}
    if not all(mask.any() for mask in chosen.values()):
        raise ValueError(f"data.folds: {corpus.num_documents} texts are too few for {folds} folds")
    splits = {name: corpus.select(np.flatnonzero(mask)) for name, mask in chosen.items()}
    return loaded._replace(
        splits=splits, notes=[*loaded.notes, f"fold {number} of {folds}, drawn by seed {seed}"]
    )


def _places(corpus: Corpus, seed: int) -> np.ndarray:
    """A number in [0, 1) for each text, such that an interval takes the same share of each class, and of all texts.

    Classes with few texts begin at places that are spread evenly, or an interval would take one from each or none.
    """
    _, kind = np.unique(corpus.targets, axis=0, return_inverse=True)
    kind = kind.reshape(-1) if len(corpus.targets) else np.zeros(corpus.num_documents, int)
    order = np.random.default_rng(seed).permutation(corpus.num_documents)
    order = order[np.argsort(kind[order], kind="stable")]
    sizes = np.bincount(kind)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(len(order))
    begin, rare = np.full(len(sizes), 0.5), np.flatnonzero(sizes < RARE)
    begin[rare[np.argsort(sizes[rare], kind="stable")]] = (0.5 + np.arange(len(rare)) * GOLDEN) % 1
    places[order] = (rank + np.repeat(begin, sizes)) / np.repeat(sizes, sizes)
    return places


def pack(splits: dict[str, Corpus], notes: list[str], *read: str) -> Arrays:
    """A `Loaded` as arrays; `read` are its last fields, as far as they are not the usual ones."""
    arrays: Arrays = {"notes": pack_strings(notes), "read": pack_strings(read)}
    for name, corpus in splits.items():
        arrays |= {f"{name}/{key}": value for key, value in corpus.arrays().items()}
    return arrays


def unpack(arrays: Arrays) -> Loaded:
    """The way back."""
    names = dict.fromkeys(key.split("/")[0] for key in arrays if "/" in key)
    splits = {
        name: Corpus.from_arrays(
            {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(f"{name}/")}
        )
        for name in names
    }
    return Loaded(splits, unpack_strings(arrays["notes"]), *unpack_strings(arrays["read"]))


def _texts_of(reading: Reading) -> list[Text]:
    """The texts of a reading if each sentence has one."""
    texts = [
        Text(s.text, s.offsets)
        for s in reading.sentences
        if s.text is not None and s.offsets is not None
    ]
    return texts if len(texts) == len(reading.sentences) else []


def _notes(reading: Reading) -> list[str]:
    repairs = [
        f"{reading.path.name}: repaired {count}: {what}" for what, count in reading.repairs.items()
    ]
    return [*reading.notes, *repairs]
