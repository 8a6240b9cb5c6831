"""Train text classifiers on several corpora and print a table: mean and standard deviation, beside a bag of n-grams.

    python scripts/text_benchmark.py DATA runs/texts --config residual_cls.yaml --seeds 3 --corpora trec sst2

DATA is a folder with the corpora (trec, sst2, ag-news, banking77, chnsenticorp-htl, atis, snips) and glove-6b-50d. The
baseline is a logistic regression on TF-IDF of 1-2-grams (characters, 1-3, in Chinese) on the same splits. Finished runs
are not repeated.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from seeds import score
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from residense.data.classification import ClassificationDataModule

VECTORS = "glove-6b-50d/glove.6B.50d.top60k.txt.gz"
CORPORA: dict[str, dict[str, Any]] = {
    "trec": {"files": "*.tsv", "text_column": 2, "label_column": 0},
    "sst2": {},
    "ag-news": {"files": "*[k,t].tsv.gz"},
    "banking77": {},
    "chnsenticorp-htl": {"repair": True},
    "atis": {},
    "snips": {},
}
EPOCHS = {"ag-news": 6, "sst2": 8, "chnsenticorp-htl": 10, "banking77": 20}


def baseline(path: Path, options: dict[str, Any]) -> float:
    """Test accuracy of a linear model, in percent."""
    data = ClassificationDataModule(path=str(path), **options)
    data.setup("test")
    (train, gold), (texts, right) = (
        (corpus.raw, [row[0] for row in corpus.document_classes()])
        for corpus in (data.splits["train"], data.splits["test"])
    )
    chinese = {"analyzer": "char", "ngram_range": (1, 3)} if path.name.startswith("chn") else {"ngram_range": (1, 2)}
    grams = TfidfVectorizer(sublinear_tf=True, **chinese)  # type: ignore[arg-type]
    model = LogisticRegression(C=30, max_iter=1000).fit(grams.fit_transform(train), gold)
    return 100 * float(model.score(grams.transform(texts), right))


def main() -> None:
    """Train, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--config", default="residual_cls.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--corpora", nargs="+", default=[name for name in CORPORA if name not in ("atis", "snips")])
    own, others = parser.parse_known_args()
    print(f"| corpus | {own.config} | TF-IDF |\n|---|---|---|")
    for name in own.corpora:
        flags = [f"--data.{key}={value}" for key, value in CORPORA[name].items()]
        vectors = [] if name.startswith("chn") else [f"--data.vectors={own.data / VECTORS}"]
        run = [f"--config={own.config}", f"--data.path={own.data / name}", *flags, *vectors, "--logger=csv"]
        epochs = [f"--trainer.max_epochs={EPOCHS[name]}"] if name in EPOCHS else []
        folder = own.runs / Path(own.config).stem / name
        values = [score(folder, seed, [*run, *epochs, *others])["accuracy"] for seed in range(own.seeds)]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        shown = ", ".join(f"{value:.1f}" for value in values)
        linear = baseline(own.data / name, CORPORA[name])
        print(f"| {name} | {statistics.mean(values):.2f} +- {spread:.2f} ({shown}) | {linear:.1f} |", flush=True)


if __name__ == "__main__":
    main()
