"""Split a corpus into training, validation and test texts, each class alike."""

import numpy as np

from residense.data.corpus import Corpus
from residense.data.source import Loaded

_RARE = 20  # texts of a class
_GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly however many there are


def complete(loaded: Loaded, shares: tuple[float, float, float], seed: int) -> Loaded:
    """Split off a validation split where there is none, and a test split where there is one file only.

    Args:
        loaded: The corpus.
        shares: Shares of train, validation and test.
        seed: Seed of the choice.

    Raises:
        ValueError: Nothing would be left to train on.
    """
    splits = loaded.splits
    if "validation" in splits or "train" not in splits:
        return loaded
    corpus = splits["train"]
    places = _places(corpus, seed)
    taken = np.zeros(corpus.num_documents, bool)
    made = {}
    start = 0.0
    for name, share in zip(("validation", "test"), shares[1:], strict=True):
        if name == "test" and len(splits) > 1:
            break
        chosen = (places >= start) & (places < start + share) & ~taken
        chosen[np.argmin(np.where(taken, np.inf, places))] |= not chosen.any()
        made[name] = corpus.select(np.flatnonzero(chosen))
        taken |= chosen
        start += share
    if taken.all():
        size = corpus.num_documents
        raise ValueError(f"{size} sentences are too few to split; add files or sentences")
    note = f"{' and '.join(made)} split off train by seed {seed}"
    train = corpus.select(np.flatnonzero(~taken))
    splits = {"train": train, **made, **{k: v for k, v in splits.items() if k != "train"}}
    return loaded._replace(splits=splits, notes=[*loaded.notes, note])


def fold(loaded: Loaded, folds: int, number: int, seed: int) -> Loaded:
    """Split all texts for cross-validation: one fold to test on, the next one to validate on.

    Raises:
        ValueError: The corpus comes in splits, or has too few texts.
    """
    if [*loaded.splits] != ["train"]:
        found = f"the corpus comes in splits of its own ({', '.join(loaded.splits)})"
        raise ValueError(f"data.folds: {found}: use --data.folds 0")
    corpus = loaded.splits["train"]
    place = np.floor(_places(corpus, seed) * folds).astype(int)
    test = place == number
    validation = place == (number + 1) % folds
    chosen = {"train": ~test & ~validation, "validation": validation, "test": test}
    if not all(mask.any() for mask in chosen.values()):
        raise ValueError(f"data.folds: {corpus.num_documents} texts are too few for {folds} folds")
    splits = {name: corpus.select(np.flatnonzero(mask)) for name, mask in chosen.items()}
    note = f"fold {number} of {folds}, drawn by seed {seed}"
    return loaded._replace(splits=splits, notes=[*loaded.notes, note])


def _places(corpus: Corpus, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each text, so that an interval takes the same share of each class and of all texts.

    Classes with few texts begin at places that are spread evenly, or an interval would take one from each or none.
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
