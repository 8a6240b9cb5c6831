"""From corpus files to batches: what the data module finds, splits, converts and says."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from residense import Synthetic, TaggingDataModule
from residense.data.readers.file import CorpusError
from residense.tags import spans

SHARED = Path(__file__).parents[3] / "shared" / "data"
COUNTS = {  # sentences, tokens, entities as published with the corpora
    "wnut17": {
        "train": (3394, 62730, 1975),
        "validation": (1009, 15733, 836),
        "test": (1287, 23394, 1079),
    },
    "weibo-ner": {
        "train": (1350, 73778, 1895),
        "validation": (270, 14509, 389),
        "test": (270, 14842, 418),
    },
    "resume-ner": {
        "train": (3821, 124099, 13440),
        "validation": (463, 13890, 1497),
        "test": (477, 15100, 1630),
    },
}


def write(path: Path, sentences: list[str]) -> Path:
    path.write_text(
        "".join(
            "\n".join(token.replace("/", "\t") for token in s.split()) + "\n\n" for s in sentences
        )
    )
    return path


def counts(data: TaggingDataModule) -> dict[str, tuple[int, int, int]]:
    return {
        name: (c.num_documents, len(c.tokens), sum(len(spans(tags)) for tags in c.document_tags()))
        for name, c in data.splits.items()
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared corpora are not beside the repository")
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("scheme", ["IOBES", pytest.param("IOB1", marks=pytest.mark.slow)])
def test_published_counts_survive_conversion_and_cache(name: str, scheme: str) -> None:
    for _ in range(2):  # read, then from the cache
        data = TaggingDataModule(path=str(SHARED / name), scheme=scheme, max_length=1000)  # type: ignore[arg-type]
        data.setup("fit")
        assert counts(data) == COUNTS[name]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared corpora are not beside the repository")
def test_splitting_long_sentences_keeps_tokens_and_entities() -> None:
    data = TaggingDataModule(path=str(SHARED / "resume-ner"), max_length=20)
    data.setup("fit")
    assert counts(data) == COUNTS["resume-ner"]
    assert (
        np.mean(data.splits["train"].lengths > 20) < 0.05
    )  # parts longer than the limit are those of long spans
    assert len(data.splits["train"]) > 3821


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared corpora are not beside the repository")
def test_vectors_land_on_their_words() -> None:
    path = SHARED / "glove-6b-50d" / "glove.6B.50d.top60k.txt.gz"
    data = TaggingDataModule(path=str(SHARED / "wnut17"), vectors=str(path))
    data.setup("fit")
    assert data.vocabulary is not None and data.vector_matrix is not None
    with gzip.open(path, "rt") as stream:
        word, *values = next(stream).split()
    row = data.vocabulary.word_ids([word])[0] - 2
    assert data.vocabulary.num_vectors == 60_000 and data.vocabulary.vector_dim == 50
    assert data.vector_matrix[row].tolist() == pytest.approx([float(v) for v in values])


def test_one_file_is_split_by_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "all.conll", [f"word{i}/O Anna/B-PER" for i in range(50)])
    firsts = []
    for seed in (0, 0, 1):
        data = TaggingDataModule(path=str(path), split_seed=seed)
        data.setup("fit")
        assert [c.num_documents for c in data.splits.values()] == [40, 5, 5]
        words = {name: {s[0] for s in c.document_tokens()} for name, c in data.splits.items()}
        assert len(set.union(*words.values())) == 50
        firsts.append(words)
    assert firsts[0] == firsts[1] != firsts[2]


def test_one_file_is_taken_whole_for_a_test(tmp_path: Path) -> None:
    path = write(tmp_path / "all.conll", ["Anna/B-PER met/O"] * 7)
    data = TaggingDataModule(path=str(path), split=None)
    train = TaggingDataModule(path=str(path))
    train.setup("fit")
    data.vocabulary = train.vocabulary
    data.setup("test")
    assert counts(data) == {"test": (7, 14, 7)}


def test_validation_is_split_off_where_it_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train.conll", ["Anna/B-PER met/O"] * 20)
    write(tmp_path / "test.conll", ["Bob/B-PER met/O"] * 3)
    data = TaggingDataModule(path=str(tmp_path))
    data.setup("fit")
    assert {name: c.num_documents for name, c in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 3,
    }
    assert "validation split off train by seed 0" in capsys.readouterr().err


def test_what_was_inferred_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train.conll", ["Anna/B-PER Lee/I-PER met/O"] * 20)
    TaggingDataModule(path=str(tmp_path)).setup("fit")
    said = capsys.readouterr().err
    assert "train.conll: TAB-separated, tokens in column 0, tags in column 1" in said
    assert (
        "tags are IOB2, converted to IOBES" in said and "20 entities" not in said.splitlines()[-1]
    )


def test_repairs_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.conll").write_text(
        "Anna\tB-PER\nmet\n\n" * 3 + "Bob\tB-PER\nleft\tO\n\n" * 9
    )
    with pytest.raises(CorpusError, match=r"train\.conll:2: .*--data\.repair true"):
        TaggingDataModule(path=str(tmp_path)).setup("fit")
    TaggingDataModule(path=str(tmp_path), repair=True).setup("fit")
    assert "repaired 3" in capsys.readouterr().err


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    for size in (20, 30):
        path = write(tmp_path / "train.conll", ["Anna/B-PER met/O"] * size)
        data = TaggingDataModule(path=str(path))
        data.setup("fit")
        assert sum(c.num_documents for c in data.splits.values()) == size


def test_a_missing_folder_and_a_missing_split_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file or folder"):
        TaggingDataModule(path=str(tmp_path / "nowhere")).setup("fit")
    write(tmp_path / "test.conll", ["Anna/B-PER met/O"])
    with pytest.raises(ValueError, match="no train split, only test"):
        TaggingDataModule(path=str(tmp_path)).setup("fit")


def test_part_of_speech_tags_are_plain_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "all.conll", ["Anna/PROPN met/VERB Bob/PROPN"] * 20)
    data = TaggingDataModule(path=str(path))
    data.setup("fit")
    assert data.vocabulary is not None
    assert (data.vocabulary.scheme, data.vocabulary.labels) == ("none", ["PROPN", "VERB"])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_embedded_corpus_needs_no_file(language: str) -> None:
    data = TaggingDataModule(synthetic=Synthetic(language=language, size=300))  # type: ignore[arg-type]
    data.setup("fit")
    assert [c.num_documents for c in data.splits.values()] == [240, 30, 30]
    assert (
        data.vocabulary is not None
        and data.vocabulary.unit == {"en": "word", "zh": "char"}[language]
    )


@pytest.mark.parametrize(
    ("train", "dev", "shown"),
    [
        (["a/B-X b/I-X", "c/O"], ["a/B-Y b/I-Y c/B-X", "d/B-Z"], "Y (2), Z (1)"),
        (["a/NOUN b/VERB"], ["a/NOUN b/ADV", "b/ADV"], "ADV (2)"),
    ],
)
def test_labels_that_train_lacks_are_warned_of(
    tmp_path: Path, train: list[str], dev: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train.conll", train)
    write(tmp_path / "dev.conll", dev)
    TaggingDataModule(path=str(tmp_path)).setup("fit")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        f"warning: validation has labels that train lacks, which cannot be learned: {shown}"
    ]
