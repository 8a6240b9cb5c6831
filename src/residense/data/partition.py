"""Split a corpus into training, validation and test texts, stratified by class."""

import numpy as np

from residense.data.corpus import Corpus
from residense.data.source import Loaded
from residense.errors import UsageError
from residense.messages import listed

_RARE = 20  # texts of a class
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are evenly spread


def complete(loaded: Loaded, shares: tuple[float, float, float], seed: int) -> Loaded:
    """Split off a validation split if there is none, and a test split if there is only one file.

    Args:
        loaded: The corpus.
        shares: Fractions of train, validation and test.
        seed: Seed of the choice.

    Raises:
        UsageError: Nothing would be left to train on.
    """
    splits = loaded.splits
    if "validation" in splits or "train" not in splits:
        return loaded
    places = _places(splits["train"], seed)
    names = ["validation", "test"] if len(splits) == 1 else ["validation"]
    train = np.ones(len(places), bool)
    chosen = {"train": train}
    start = 0.0
    for name, share in zip(names, shares[1:], strict=False):
        chosen[name] = train & (places >= start) & (places < start + share)
        chosen[name][np.argmin(np.where(train, places, np.inf))] |= not chosen[name].any()
        train &= ~chosen[name]
        start += share
    if not train.any():
        raise UsageError(f"{len(places)} sentences are too few to split; add files or sentences")
    return _selected(loaded, chosen, f"{' and '.join(names)} split off train by seed {seed}")


def fold(loaded: Loaded, folds: int, number: int, seed: int) -> Loaded:
    """Split all texts for cross-validation: one fold to test on, the next one to validate on.

    Raises:
        UsageError: The corpus has splits, or too few texts.
    """
    if [*loaded.splits] != ["train"]:
        found = f"the corpus has splits of its own ({', '.join(loaded.splits)})"
        raise UsageError(f"data.folds: {found}: use --data.folds 0")
    places = np.floor(_places(loaded.splits["train"], seed) * folds).astype(int)
    test = places == number
    validation = places == (number + 1) % folds
    chosen = {"train": ~test & ~validation, "validation": validation, "test": test}
    if not all(mask.any() for mask in chosen.values()):
        raise UsageError(f"data.folds: {len(places)} texts are too few for {folds} folds")
    return _selected(loaded, chosen, f"fold {number} of {folds}, drawn by seed {seed}")


def untrained(loaded: Loaded) -> list[str]:
    """Return a warning for each split with labels that the training split lacks."""
    known = loaded.splits["train"].label_counts(loaded.scheme)
    notes = []
    for name, corpus in loaded.splits.items():
        counts = corpus.label_counts(loaded.scheme).items()
        new = [f"{label} ({n:,})" for label, n in counts if label not in known]
        if new:
            wrong = "has labels that train lacks, which cannot be learned"
            notes.append(f"warning: {name} {wrong}: {listed(new)}")
    return notes


def _selected(loaded: Loaded, chosen: dict[str, np.ndarray], note: str) -> Loaded:
    corpus = loaded.splits["train"]
    made = {name: corpus.select(np.flatnonzero(mask)) for name, mask in chosen.items()}
    return loaded._replace(splits={**loaded.splits, **made}, notes=[*loaded.notes, note])


def _places(corpus: Corpus, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each text; an interval has the same fraction of each class.

    The numbers of classes with few texts begin at evenly spread offsets, or an interval would have
    one text of each of them, or none.
    """
    if len(corpus.targets):
        kind = np.unique(corpus.targets, axis=0, return_inverse=True)[1].reshape(-1)
    else:
        kind = np.zeros(corpus.num_documents, int)
    order = np.random.default_rng(seed).permutation(corpus.num_documents)
    order = order[np.argsort(kind[order], kind="stable")]
    sizes = np.bincount(kind)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rare = np.flatnonzero(sizes < _RARE)
    begin = np.full(len(sizes), 0.5)
    begin[rare[np.argsort(sizes[rare], kind="stable")]] = (0.5 + np.arange(len(rare)) * _GOLDEN) % 1
    places = np.empty(len(order))
    places[order] = (rank + np.repeat(begin, sizes)) / np.repeat(sizes, sizes)
    return places
