"""Reading tagging corpora: column files, CoNLL-U, JSON lines, and whatever Hugging Face `datasets` opens."""

from pathlib import Path
from typing import Any

from residense.data.columns import Column, read_columns
from residense.data.conllu import is_conllu, read_conllu
from residense.data.files import find_splits, read_lines
from residense.data.hub import column, load_splits
from residense.data.jsonl import read_jsonl
from residense.data.sentences import CorpusError, Faults, Reading, Sentence, no_sentence

__all__ = ["CorpusError", "Reading", "Sentence", "find_splits", "read", "read_dataset"]

_TAG_COLUMNS = ("ner_tags", "tags")


def read(
    path: Path,
    token_column: Column = None,
    tag_column: Column = None,
    encoding: str = "utf-8",
    repair: bool = False,
    labelled: bool = True,
    like: Reading | None = None,
) -> Reading:
    """Return the sentences of one file, whose name says its format: .jsonl, .parquet, .conllu, or else columns.

    Args:
        path: The file; .gz is unpacked.
        token_column: Column of the tokens in a column file, a 0-based position (negative from the right) or a
            name in its header line or in CoNLL-U; None to infer it.
        tag_column: The same for the tags.
        encoding: Encoding of the file.
        repair: Repair what is malformed, and count it, instead of raising.
        labelled: Whether there must be tags; they are not read otherwise.
        like: Another split of the corpus; if its name has the same suffix, this one is read by the same rules.
    """
    name = path.name.lower()
    if like is not None and _suffix(like.path) != _suffix(path):
        like = None
    if name.endswith(".parquet"):
        return read_dataset(str(path), labelled)["train"]
    faults = Faults(path, repair)
    lines, replaced = read_lines(path, encoding, repair)
    if replaced:
        faults.repairs["undecodable bytes read as U+FFFD"] = replaced
    if name.removesuffix(".gz").endswith(".jsonl"):
        return read_jsonl(faults, lines, labelled)
    conllu = is_conllu(lines) if like is None else like.format == "CoNLL-U"
    if conllu or _suffix(path) == ".conllu":
        return read_conllu(faults, lines, token_column, tag_column, labelled)
    return read_columns(faults, lines, token_column, tag_column, labelled, like and like.layout)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_dataset(name_or_path: str, labelled: bool = True) -> dict[str, Reading]:
    """Return the splits of a parquet file, which is "train", or of a data set on the Hugging Face hub.

    The columns must be tokens and ner_tags or tags; numbers take their names from the ClassLabel feature.

    Args:
        name_or_path: Path ending in .parquet, or hub id such as "user/corpus".
        labelled: Whether there must be tags; they are not read otherwise.
    """
    path = Path(name_or_path)
    known = load_splits(name_or_path)
    return {
        split: _from_dataset(path, data) if labelled else _tokens_of(path, data)
        for split, data in known.items()
    }


def _tokens_of(path: Path, data: Any) -> Reading:
    if "tokens" not in data.features:
        raise CorpusError(path, None, "no column tokens", list(data.features), "rename the columns")
    sentences = [
        Sentence([str(token) for token in tokens or ()], [], row)
        for row, tokens in enumerate(column(path, data, "tokens"), 1)
    ]
    return Reading(path, sentences, "datasets", "tokens")


def _from_dataset(path: Path, data: Any) -> Reading:
    key = next((key for key in _TAG_COLUMNS if key in data.features), None)
    if key is None or "tokens" not in data.features:
        wrong = f"no columns tokens and {' or '.join(_TAG_COLUMNS)}"
        raise CorpusError(path, None, wrong, list(data.features), "rename the columns")
    names: dict[Any, str] = dict(
        enumerate(getattr(getattr(data.features[key], "feature", None), "names", ()))
    )
    sentences = []
    for row, (tokens, values) in enumerate(
        zip(column(path, data, "tokens"), column(path, data, key), strict=True), 1
    ):
        tags: list[Any] = [names.get(value, value) for value in values or ()]
        named = all(isinstance(value, str) and value for value in (*(tokens or ()), *tags))
        if not tokens or len(tokens) != len(tags) or not named:
            wrong = "row without a named tag for each token"
            raise CorpusError(path, row, wrong, [tokens, values], "correct the row")
        sentences.append(Sentence(tokens, tags, row))
    if not sentences:
        raise no_sentence(path)
    notes = [f"{path.name}: tokens and {key} of a data set, {len(sentences)} rows"]
    return Reading(path, sentences, "datasets", "tokens", key, notes=notes)
