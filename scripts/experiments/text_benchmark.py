r"""Train on real text corpora and print test scores beside a linear baseline.

    python scripts/experiments/text_benchmark.py DATA runs/texts
    python scripts/experiments/text_benchmark.py DATA runs/texts --rows sst2 \
        --model.encoder.connection Residual

DATA is a directory with the corpora and glove-6b-50d; `embedded`, the synthetic corpus, needs none.
Each row has its config, to which options of `main.py fit` are added. Scores are means and standard
deviations over seeds. The baseline for texts and intents is logistic regression on TF-IDF of word
1-2-grams (character 1-3-grams in Chinese) on the same splits, for slots a lookup of the training
slots, and for parts of speech the most frequent tag of each word. Finished runs are reused if their
options and data have not changed.
"""

import argparse
import json
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from residense.data.classification import ClassificationDataModule
from residense.data.tagging import TaggingDataModule

sys.path.append(str(Path(__file__).parents[1]))
from seeds import scores

VECTORS = "glove-6b-50d/glove.6B.50d.top60k.txt.gz"


@dataclass
class Row:
    """A corpus and its options for reading and training."""

    folder: str | None
    config: str
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


SHORT = {"model.encoder.branch.dropout": 0.3}  # harms the maximum over a long text
LONG = {**SHORT, "model.pooling": "AttentionPooling"}
TREC = {"files": "*.tsv", "text_column": 2, "label_column": 0}
ROWS = {
    "embedded": Row(None, "dense_cls.yaml"),
    "trec": Row("trec", "conv_residual_cls.yaml", TREC, SHORT),
    "sst2": Row(
        "sst2",
        "dense_cls.yaml",
        {"label_column": 1},
        {"trainer.max_epochs": 8, "data.batch_tokens": 1024},
    ),
    "ag-news": Row(
        "ag-news",
        "conv_residual_cls.yaml",
        {"files": "*[k,t].tsv.gz", "label_column": 1},
        {**SHORT, "trainer.max_epochs": 6},
    ),
    "banking77": Row(
        "banking77", "conv_residual_cls.yaml", {}, {**SHORT, "trainer.max_epochs": 20}
    ),
    "chnsenticorp": Row(
        "chnsenticorp-htl",
        "dense_cls.yaml",
        {"repair": True},
        {**LONG, "data.batch_tokens": 2048, "trainer.max_epochs": 8},
    ),
    "atis": Row("atis", "lstm_dense_slots.yaml", {"files": "*.intent.tsv", "label_column": 0}),
    "snips": Row("snips", "lstm_dense_slots.yaml", {"files": "*.intent.tsv", "label_column": 0}),
    "ud-ewt": Row("ud-ewt", "lstm_dense_pos.yaml"),
}


def options(row: Row, data: Path) -> list[str]:
    """Return the options of `main.py fit`."""
    flags = [f"--config={row.config}", "--logger=csv"]
    if row.folder is not None:
        flags.append(f"--data.path={data / row.folder}")
        flags += [] if row.folder.startswith("chn") else [f"--data.vectors={data / VECTORS}"]
    if row.config != "lstm_dense_slots.yaml":
        flags += [f"--data.{key}={value}" for key, value in row.data.items()]
    return [*flags, *(f"--{key}={value}" for key, value in row.training.items())]


def text_baseline(row: Row, data: Path) -> float:
    """Return the test accuracy of a linear n-gram model in percent."""
    read = ClassificationDataModule(
        path=None if row.folder is None else str(data / row.folder), **row.data
    )
    read.setup("test")
    (train, gold), (texts, right) = (
        (corpus.raw, [classes[0] for classes in corpus.document_classes()])
        for corpus in (read.splits["train"], read.splits["test"])
    )
    kind: dict[str, Any] = {"ngram_range": (1, 2)}
    if "repair" in row.data:  # the Chinese one
        kind = {"analyzer": "char", "ngram_range": (1, 3)}
    grams = TfidfVectorizer(sublinear_tf=True, **kind)
    model = LogisticRegression(C=30, max_iter=1000).fit(grams.fit_transform(train), gold)
    return 100 * float(model.score(grams.transform(texts), right))


def tag_baseline(row: Row, data: Path) -> float:
    """Return the test accuracy of the most frequent tag of each word in percent."""
    read = TaggingDataModule(path=str(data / str(row.folder)), **row.data)
    read.setup("test")
    (train, tags), (tokens, right) = (
        ([corpus.forms[i] for i in corpus.tokens], [corpus.labels[i] for i in corpus.tags])
        for corpus in (read.splits["train"], read.splits["test"])
    )
    counts: dict[str, Counter[str]] = {}
    for token, tag in zip(train, tags, strict=True):
        counts.setdefault(token, Counter())[tag] += 1
    usual = Counter(tags).most_common(1)[0][0]
    found = [counts[token].most_common(1)[0][0] if token in counts else usual for token in tokens]
    return 100 * sum(a == b for a, b in zip(found, right, strict=True)) / len(right)


def baselines(row: Row, data: Path, run: Path) -> dict[str, float]:
    """Return the baseline of each score."""
    if row.config == "lstm_dense_pos.yaml":
        return {"accuracy": tag_baseline(row, data)}
    if row.config == "lstm_dense_slots.yaml":
        looked_up = json.loads((run / "test.json").read_text())["compared"]["dictionary lookup"][
            "f1"
        ]
        return {"F1": 100 * looked_up, "intents": text_baseline(row, data)}
    return {"accuracy": text_baseline(row, data)}


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    own, others = parser.parse_known_args()
    print("| corpus | config | score | test | baseline |\n|---|---|---|---|---|")
    for name in own.rows:
        row, folder = ROWS[name], own.runs / name
        words = [*options(row, own.data), *others]
        values = scores(
            {folder / f"seed-{n}": [f"--seed_everything={n}", *words] for n in range(own.seeds)}
        )
        for said, linear in baselines(row, own.data, folder / "seed-0").items():
            found = [value[said] for value in values]
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            shown = f"{statistics.mean(found):.2f} +- {spread:.2f} ({', '.join(f'{value:.2f}' for value in found)})"
            print(f"| {name} | {row.config} | {said} | {shown} | {linear:.2f} |", flush=True)


if __name__ == "__main__":
    main()
