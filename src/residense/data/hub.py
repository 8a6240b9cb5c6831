"""Opening parquet files and data sets of the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

from residense.data.cache import folder
from residense.data.sentences import CorpusError

_SPLITS = {"train": "train", "validation": "validation", "dev": "validation", "test": "test"}


def load_splits(name_or_path: str) -> dict[str, Any]:
    """Return the splits of a parquet file, which is "train", or of a data set on the Hugging Face hub.

    Args:
        name_or_path: Path ending in .parquet, or hub id such as "user/corpus".

    Raises:
        CorpusError: `datasets` is missing or cannot load it, or there is no split with a known name.
    """
    path = Path(name_or_path)
    try:
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        import datasets

        if path.suffix.lower() == ".parquet":
            cache = str(folder() / "datasets")
            splits: dict[Any, Any] = {"train": datasets.Dataset.from_parquet(name_or_path, cache_dir=cache)}
        else:
            splits = dict(datasets.load_dataset(name_or_path))
    except ImportError as error:
        raise CorpusError(path, None, f"{error}", fix="pip install datasets") from None
    except Exception as error:  # the hub, its cache and pyarrow raise whatever they like
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        fix = "check the name, the network and `--data.path`"
        raise CorpusError(path, None, f"datasets cannot load it ({reason})", fix=fix) from None
    if not splits.keys() & _SPLITS.keys():
        raise CorpusError(path, None, f"no split {', '.join(_SPLITS)}", list(splits), "choose another data set")
    return {_SPLITS[split]: data for split, data in splits.items() if split in _SPLITS}


def column(path: Path, data: Any, name: str) -> list[Any]:
    """Return all values of a column.

    Raises:
        CorpusError: a string in it is not UTF-8, or the file is damaged in its middle.
    """
    try:
        return list(data[name])
    except Exception as error:  # as above
        wrong = f"column {name} cannot be read ({str(error).splitlines()[0]})"
        raise CorpusError(path, None, wrong, fix="fetch or write the file again") from None
