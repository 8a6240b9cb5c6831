"""Small files that unpack, expand or nest without measure are refused, or read in few seconds and little memory.

    pytest tests/test_bombs.py -m "slow or not slow"

A kind of bomb is a function in a table: it writes a file and gives back what reads it.
"""

import contextlib
import gzip
import io
import itertools
import json
import multiprocessing
import os
import resource
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch

from residense import ClassificationDataModule, TaggingDataModule, Vocabulary
from residense.cli import main
from residense.data.batches import Encoded
from residense.data.module import TextDataModule
from residense.data.units import Units, subword_tokenizer
from residense.run.checkpoints import FORMAT

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("datasets")

SECONDS, BYTES, DISK = 10, 1 << 30, 100 << 20
GIVE_UP = 4 * BYTES  # what a process may allocate before it is ended
LONG = "x" * 1_000_000


class Cost(NamedTuple):
    """What reading a file took, in seconds of the processor, and the error that refused it, if one did."""

    seconds: float
    memory: int
    error: str | None


# -- how the cost is measured ------------------------------------------------------------------------------------------


def cost(read: Callable[[], object]) -> Cost:
    """Call a function in a process of its own, which begins with all that is imported here."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_report, args=(read, sender))
    process.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(12 * SECONDS) else None
    except EOFError:
        found = None
    process.kill()
    process.join()
    return found or Cost(2 * SECONDS, GIVE_UP, f"ended with exit code {process.exitcode}")


def _report(read: Callable[[], object], sender: Any) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GIVE_UP
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    begin, before = time.process_time(), _peak()
    resource.setrlimit(resource.RLIMIT_CPU, (int(begin) + 2 * SECONDS, int(begin) + 2 * SECONDS))
    error = None
    try:
        read()
    except ValueError as refused:
        error = str(refused)
    except BaseException as unexpected:
        error = f"unexpected {unexpected!r}"
    sender.send(Cost(time.process_time() - begin, _peak() - before, error))
    sender.close()
    os._exit(0)


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def assert_bounded(found: Cost) -> None:
    assert found.seconds < SECONDS and found.memory < BYTES, found
    if found.error is not None:
        assert not found.error.startswith(("unexpected", "ended")), found
        assert "\n" not in found.error and len(found.error) < 1000, found


# -- what reads a file -------------------------------------------------------------------------------------------------

Reader = Callable[[], object]


def prepared(data: TextDataModule) -> None:
    """All that happens between a file and the first batch."""
    data.check()
    data.setup("fit")
    assert data.vocabulary is not None
    for corpus in data.splits.values():
        Encoded(corpus, data.vocabulary)


def tags(path: Path, **options: Any) -> Reader:
    return lambda: prepared(TaggingDataModule(str(path), **options))


def texts(path: Path, **options: Any) -> Reader:
    return lambda: prepared(ClassificationDataModule(str(path), **options))


def vectors(path: Path) -> Reader:
    return tags(written(path.parent, "train.conll", "a O\nb B-X\n\n" * 30), vectors=str(path))


# -- bombs -------------------------------------------------------------------------------------------------------------

BOMBS: dict[str, Callable[[Path], Reader]] = {}
Bomb = Callable[[Path], Reader]


def bomb(make: Bomb) -> Bomb:
    """Enter a kind of bomb into the table."""
    BOMBS[make.__name__] = make
    return make


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def packed(folder: Path, name: str, part: bytes, size: int) -> Path:
    """A gzip file of a part repeated to a size."""
    with gzip.open(folder / name, "wb") as stream:
        block = part * max(1, (1 << 20) // len(part))
        for _ in range(size // len(block)):
            stream.write(block)
    return folder / name


def parquet(folder: Path, columns: dict[str, Any], groups: int = 1, **options: Any) -> Path:
    table = pa.table(columns)
    with pq.ParquetWriter(
        folder / "train.parquet", table.schema, compression="zstd", **options
    ) as writer:
        for _ in range(groups):
            writer.write_table(table)
    return folder / "train.parquet"


def repeated(value: str, count: int, kind: Any = None) -> Any:
    """A column of one string over and over, which takes the place of one."""
    values = pa.array([value], kind or pa.string())
    return pa.DictionaryArray.from_arrays(_zeros(count), values)


def _zeros(count: int) -> Any:
    return pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(bytes(4 * count))])


def lists(values: Any, rows: int) -> Any:
    """A column of lists, the values shared out over the rows."""
    each = len(values) // rows
    return pa.ListArray.from_arrays(pa.array(range(0, each * rows + 1, each), pa.int32()), values)


@bomb
def parquet_tokens_in_a_dictionary(folder: Path) -> Reader:
    count = 1700
    columns = {
        "tokens": lists(repeated(LONG, count), count),
        "ner_tags": lists(repeated("O", count), count),
    }
    return tags(parquet(folder, columns))


@bomb
def parquet_one_row_of_long_tokens(folder: Path) -> Reader:
    columns = {"tokens": lists(repeated(LONG, 1700), 1), "ner_tags": lists(repeated("O", 1700), 1)}
    return tags(parquet(folder, columns))


@bomb
def parquet_texts_in_a_dictionary(folder: Path) -> Reader:
    return texts(parquet(folder, {"text": repeated(LONG, 1700), "label": repeated("a", 1700)}))


@bomb
def parquet_large_texts_in_a_dictionary(folder: Path) -> Reader:
    long = repeated(LONG, 1700, pa.large_string())
    return texts(parquet(folder, {"text": long, "label": repeated("a", 1700)}))


@bomb
def parquet_pages_that_are_compressed(folder: Path) -> Reader:
    columns = {"text": pa.array([LONG] * 17), "label": pa.array(["a"] * 17)}
    return texts(parquet(folder, columns, groups=100, use_dictionary=False))


@bomb
def parquet_many_equal_numbers(folder: Path) -> Reader:
    count = 2_000_000
    return texts(parquet(folder, {"text": _zeros(count), "label": _zeros(count)}, groups=50))


@bomb
def parquet_a_row_of_very_many_numbers(folder: Path) -> Reader:
    count = 400_000_000
    values = pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bytes(count // 8))])
    return tags(parquet(folder, {"tokens": lists(values, 1), "ner_tags": lists(_zeros(1), 1)}))


@bomb
def parquet_rows_of_nothing(folder: Path) -> Reader:
    return texts(parquet(folder, {"text": pa.nulls(100_000_000), "label": pa.nulls(100_000_000)}))


@bomb
def parquet_rows_of_empty_lists(folder: Path) -> Reader:
    count = 20_000_000
    empty = pa.ListArray.from_buffers(
        pa.list_(pa.string()),
        count,
        [None, pa.py_buffer(bytes(4 * count + 4))],
        children=[pa.array([], pa.string())],
    )
    return tags(parquet(folder, {"tokens": empty, "ner_tags": empty}))


@bomb
def parquet_very_many_columns(folder: Path) -> Reader:
    return texts(parquet(folder, {f"c{i}": pa.array(["a"]) for i in range(20_000)}))


@bomb
def parquet_deep_lists(folder: Path) -> Reader:
    kind, value = pa.string(), "a"
    for _ in range(200):
        kind, value = pa.list_(kind), [value]  # type: ignore[assignment]
    return tags(parquet(folder, {"tokens": pa.array([value], kind), "ner_tags": pa.array([["O"]])}))


@bomb
def parquet_very_many_groups(folder: Path) -> Reader:
    return texts(
        parquet(folder, {"text": pa.array(["a b"]), "label": pa.array(["a"])}, groups=10_000)
    )


@bomb
def parquet_deep_features(folder: Path) -> Reader:
    path = parquet(folder, {"text": pa.array(["a b"]), "label": pa.array(["a"])})
    table = pq.read_table(path)
    nested = b'{"info": {"features": ' + b'{"a": ' * 200_000 + b"1" + b"}" * 200_002
    pq.write_table(table.replace_schema_metadata({"huggingface": nested}), path)
    return texts(path)


@bomb
def parquet_a_footer_that_says_to_be_huge(folder: Path) -> Reader:
    path = parquet(folder, {"text": pa.array(["a b"]), "label": pa.array(["a"])})
    content = path.read_bytes()
    path.write_bytes(content[:-8] + struct.pack("<I", 0x7FFFFFFF) + content[-4:])
    return texts(path)


@bomb
def parquet_sizes_that_lie(folder: Path) -> Reader:
    """All of the metadata says that a page of 300 MB holds little."""
    path = parquet(
        folder,
        {"text": pa.array([LONG] * 300), "label": pa.array(["a"] * 300)},
        use_dictionary=False,
    )
    size = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    content, said = path.read_bytes(), _varint(size)
    assert said in content
    path.write_bytes(content.replace(said, _varint(100, len(said))))
    return texts(path)


def _varint(value: int, length: int = 0) -> bytes:
    """A number as Thrift writes it, in at least so many bytes."""
    left, parts = 2 * value, []
    while left or len(parts) < length:
        parts.append(left & 0x7F)
        left >>= 7
    return bytes(part | 0x80 for part in parts[:-1]) + bytes(parts[-1:])


@bomb
def gzip_of_columns(folder: Path) -> Reader:
    return tags(packed(folder, "train.conll.gz", b"a O\n", 400 << 20))


@bomb
def gzip_of_short_sentences_just_within_the_bound(folder: Path) -> Reader:
    return tags(packed(folder, "train.conll.gz", b"a O\n\n", 1 << 20))


@bomb
def gzip_of_one_letter(folder: Path) -> Reader:
    return tags(packed(folder, "train.conll.gz", b"a", 1500 << 20))


@bomb
def gzip_of_line_ends(folder: Path) -> Reader:
    return tags(packed(folder, "train.conllu.gz", b"\n", 400 << 20))


@bomb
def gzip_of_json_lines(folder: Path) -> Reader:
    return tags(packed(folder, "train.jsonl.gz", b'{"tokens": ["a"], "tags": ["O"]}\n', 400 << 20))


@bomb
def gzip_of_rows(folder: Path) -> Reader:
    return texts(packed(folder, "train.csv.gz", b"a b,x\n", 400 << 20))


@bomb
def gzip_of_short_rows_just_within_the_bound(folder: Path) -> Reader:
    return texts(packed(folder, "train.tsv.gz", b"a\tx\nb a\ty\n", 1 << 20))


@bomb
def gzip_of_quotes(folder: Path) -> Reader:
    return texts(packed(folder, "train.tsv.gz", b'"', 400 << 20))


@bomb
def gzip_in_gzip(folder: Path) -> Reader:
    inner = packed(folder, "inner.gz", b"a O\n", 400 << 20)
    return tags(written(folder, "train.conll.gz", gzip.compress(inner.read_bytes())))


@bomb
def gzip_of_very_many_members(folder: Path) -> Reader:
    return tags(
        written(
            folder,
            "train.conll.gz",
            gzip.compress(b"") * 50_000 + gzip.compress(b"a O\nb B-X\n" * 9),
        )
    )


@bomb
def gzip_of_vectors(folder: Path) -> Reader:
    return vectors(packed(folder, "words.txt.gz", b"a 1 2 3\n", 400 << 20))


def zipped(folder: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(folder / "words.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return folder / "words.zip"


@bomb
def zip_of_vectors(folder: Path) -> Reader:
    return vectors(zipped(folder, words__txt=b"a 1 2 3\n" * (50 << 20)))


@bomb
def zip_of_one_line(folder: Path) -> Reader:
    return vectors(zipped(folder, words__vec=b"1 " * (200 << 20)))


@bomb
def zip_whose_size_lies(folder: Path) -> Reader:
    path = zipped(folder, words__txt=b"a 1 2 3\n" * (50 << 20))
    path.write_bytes(
        path.read_bytes().replace(struct.pack("<I", 400 << 20), struct.pack("<I", 800))
    )
    return vectors(path)


@bomb
def zip_of_very_many_members(folder: Path) -> Reader:
    return vectors(zipped(folder, **{f"{i}__txt": b"" for i in range(30_000)}))


@bomb
def json_nested_lists(folder: Path) -> Reader:
    return tags(written(folder, "train.jsonl", '{"tokens": ' + "[" * 1_000_000))


@bomb
def json_nested_objects(folder: Path) -> Reader:
    return texts(written(folder, "train.jsonl", '{"text":' * 500_000 + "1" + "}" * 500_000))


@bomb
def json_a_number_of_a_million_digits(folder: Path) -> Reader:
    return tags(written(folder, "train.jsonl", f'{{"tokens": ["a"], "tags": [{"9" * 1_000_000}]}}'))


@bomb
def json_a_text_of_numbers(folder: Path) -> Reader:
    return texts(
        written(folder, "train.jsonl", f'{{"text": "a b", "label": {"9" * 1_000_000}}}\n' * 2)
    )


@bomb
def json_very_many_spans(folder: Path) -> Reader:
    spans = [[2 * i, 2 * i + 1, "X"] for i in range(50_000)]
    return tags(
        written(
            folder, "train.jsonl", f"{json.dumps({'text': 'a ' * 50_000, 'spans': spans})}\n" * 3
        )
    )


@bomb
def json_spans_that_overlap(folder: Path) -> Reader:
    spans = [[i, 100_000 - i, "X"] for i in range(0, 40_000)]
    line = json.dumps({"text": "ab" * 50_000, "spans": spans})
    return tags(written(folder, "train.jsonl", f"{line}\n" * 3), repair=True)


@bomb
def json_very_many_keys(folder: Path) -> Reader:
    return texts(
        written(folder, "train.jsonl", json.dumps({f"k{i}": "v" for i in range(200_000)}) + "\n")
    )


@bomb
def json_other_keys_in_each_line(folder: Path) -> Reader:
    lines = (json.dumps({"text": "a b", "label": "x", f"k{i}": 1}) for i in range(50_000))
    return texts(written(folder, "train.jsonl", "\n".join(lines)))


@bomb
def csv_an_open_quote(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", 'text,label\n"' + "a b,x\n" * 500_000))


@bomb
def csv_quotes_alone(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", '"' * 3_000_001))


@bomb
def csv_very_many_columns(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", ("a," * 300_000 + "\n") * 3))


@bomb
def csv_labels_that_hardly_repeat(folder: Path) -> Reader:
    rows = "".join(f"some text {i},{i % 30_000}\n" for i in range(60_000))
    return texts(written(folder, "train.csv", f"text,label\n{rows}"), label_column="label")


@bomb
def csv_a_cell_of_megabytes(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", f"text,label\n{'a b ' * 250_000},x\na b,y\n"))


@bomb
def csv_carriage_returns(folder: Path) -> Reader:
    return texts(written(folder, "train.csv", "\r" * 3_000_000))


@bomb
def columns_very_many(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", ("a " * 500_000 + "O\n") * 3))


@bomb
def columns_a_token_of_megabytes(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", f"{'a' * 4_000_000} B-X\nb O\n\n" * 2))


@bomb
def columns_a_sentence_of_very_many_tokens(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", ("a O\n" * 150_000 + "b B-X\n\n") * 3))


@bomb
def columns_an_entity_of_very_many_tokens(folder: Path) -> Reader:
    return tags(
        written(folder, "train.conll", ("b B-X\n" + "a I-X\n" * 100_000 + "\n") * 3), max_length=1
    )


@bomb
def columns_another_tag_for_each_token(folder: Path) -> Reader:
    return tags(written(folder, "train.conll", "".join(f"a B-{i}\n\n" for i in range(50_000))))


@bomb
def texts_of_half_an_address(folder: Path) -> Reader:
    parts = (
        "www." + "a." * 50_000,
        "a@" * 50_000,
        "a.b-" * 25_000 + "@",
        "e" + "\u0301" * 100_000,
        "n't" * 50_000,
    )
    return texts(
        written(
            folder, "train.tsv", "".join(f"{part}\t{i % 2}\n" for i, part in enumerate(parts * 2))
        )
    )


# -- configs and checkpoints -------------------------------------------------------------------------------------------


def command(*words: str) -> Reader:
    """A command line; it ends in an error of one line, or trains."""

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = main([*words])
        if code:
            raise ValueError(errors.getvalue().splitlines()[-1])

    return run


def config(folder: Path, content: str) -> Reader:
    return command(
        "fit", f"--config={written(folder, 'bomb.yaml', content)}", f"--run_dir={folder / 'run'}"
    )


ALIASES = "a: &a [x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in itertools.pairwise("abcdefghij")
)


@bomb
def yaml_aliases(folder: Path) -> Reader:
    return config(folder, ALIASES)


@bomb
def yaml_aliases_in_a_fragment(folder: Path) -> Reader:
    return config(
        folder, f"model: {written(folder, 'part.yaml', ALIASES)}\ndata: data/synthetic_en.yaml\n"
    )


@bomb
def yaml_aliases_in_a_fragment_of_a_fragment(folder: Path) -> Reader:
    part = written(
        folder, "part.yaml", f"class_path: Tagger\ninit_args:\n  encoder: {folder / 'inner.yaml'}\n"
    )
    written(folder, "inner.yaml", ALIASES)
    return config(folder, f"model: {part}\ndata: data/synthetic_en.yaml\n")


@bomb
def yaml_aliases_in_an_option(folder: Path) -> Reader:
    return command(
        "fit",
        "--config=dense_ner.yaml",
        f"--model.encoder={ALIASES}",
        f"--run_dir={folder / 'run'}",
    )


@bomb
def yaml_merged_keys(folder: Path) -> Reader:
    merged = "".join(
        f"{n}: &{n} {{<<: [{', '.join([f'*{m}'] * 9)}], {n}: 1}}\n"
        for m, n in itertools.pairwise("abcdefgh")
    )
    return config(folder, f"a: &a {{x: 1}}\n{merged}")


@bomb
def yaml_nested_lists(folder: Path) -> Reader:
    return config(folder, "model: " + "[" * 90_000)


@bomb
def yaml_nested_blocks(folder: Path) -> Reader:
    return config(folder, "".join(f"{' ' * i}a:\n" for i in range(400)))


@bomb
def yaml_very_many_values(folder: Path) -> Reader:
    return config(folder, "a: [" + "x, " * 3_000_000 + "]")


@bomb
def yaml_one_long_line(folder: Path) -> Reader:
    return config(folder, "name: " + "x" * 15_000_000)


@bomb
def yaml_a_number_of_very_many_digits(folder: Path) -> Reader:
    return config(folder, "seed_everything: " + "9" * 90_000)


def checkpoint(folder: Path, **parts: Any) -> Reader:
    """Predict with a checkpoint that has these parts."""
    content = {
        "hyper_parameters": {"_class_path": "residense.Tagger"},
        "datamodule_hyper_parameters": {"_class_path": "residense.TaggingDataModule"},
        "vocabulary": asdict(Vocabulary(["a"], ["a"], ["O"], "IOB2", "word")),
        "state_dict": {},
        **{"loops": {}, "epoch": 0, "global_step": 0, "format": FORMAT},
        "pytorch-lightning_version": L.__version__,
    }
    torch.save(content | parts, folder / "bomb.ckpt")
    return command("predict", f"--ckpt_path={folder / 'bomb.ckpt'}", "--data.text=a b")


def doubled(value: Any, times: int = 40) -> Any:
    """A list of a list twice, of a list twice, ..."""
    for _ in range(times):
        value = [value, value]
    return value


@bomb
def checkpoint_shared_settings(folder: Path) -> Reader:
    return checkpoint(
        folder, hyper_parameters={"_class_path": "residense.Tagger", "head": doubled("x")}
    )


@bomb
def checkpoint_shared_settings_of_the_data(folder: Path) -> Reader:
    settings = {"_class_path": "residense.TaggingDataModule", "files": doubled("x")}
    return checkpoint(folder, datamodule_hyper_parameters=settings)


@bomb
def checkpoint_long_shared_strings(folder: Path) -> Reader:
    return checkpoint(
        folder, hyper_parameters={"_class_path": "residense.Tagger", "head": [LONG] * 100_000}
    )


@bomb
def checkpoint_shared_words(folder: Path) -> Reader:
    vocabulary = asdict(Vocabulary(["a"], ["a"], ["O"], "IOB2", "word"))
    return checkpoint(folder, vocabulary=vocabulary | {"words": doubled("x")})


def doubling_tokenizer() -> str:
    """A tokenizer by whose normalizer each letter becomes two, 27 times."""
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    trained = json.loads(subword_tokenizer(["a b"] * 100, 100))
    return json.dumps(trained | {"normalizer": {"type": "Sequence", "normalizers": [double] * 27}})


@bomb
def tokenizer_that_makes_texts_longer(folder: Path) -> Reader:
    return lambda: Units("subword", doubling_tokenizer()).cut("a b")


@bomb
def checkpoint_a_tokenizer_that_makes_texts_longer(folder: Path) -> Reader:
    vocabulary = Vocabulary(["a"], ["a"], ["O"], "IOB2", "word", subwords=doubling_tokenizer())
    return checkpoint(folder, vocabulary=asdict(vocabulary))


@bomb
def checkpoint_nested_settings(folder: Path) -> Reader:
    nested: Any = "x"
    for _ in range(60):
        nested = {"class_path": "residense.Chain", "init_args": {"blocks": [nested]}}
    return checkpoint(
        folder, hyper_parameters={"_class_path": "residense.Tagger", "encoder": nested}
    )


@bomb
def checkpoint_a_weight_without_storage(folder: Path) -> Reader:
    return checkpoint(folder, state_dict={"head.score.weight": torch.zeros(1).expand(1 << 40)})


@bomb
def checkpoint_that_is_compressed(folder: Path) -> Reader:
    read = checkpoint(folder, state_dict={"weight": torch.zeros(400 << 20, dtype=torch.uint8)})
    stored = zipfile.ZipFile(folder / "bomb.ckpt")
    with stored, zipfile.ZipFile(folder / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in stored.infolist():
            archive.writestr(entry.filename, stored.read(entry))
    (folder / "packed.ckpt").replace(folder / "bomb.ckpt")
    return read


FAST = (
    "yaml_aliases_in_a_fragment_of_a_fragment",
    "checkpoint_shared_settings",
    "checkpoint_that_is_compressed",
    "parquet_tokens_in_a_dictionary",
    "parquet_texts_in_a_dictionary",
    "parquet_deep_features",
    "gzip_in_gzip",
    "zip_of_very_many_members",
    "json_nested_lists",
    "json_spans_that_overlap",
    "csv_quotes_alone",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in BOMBS]
)
def test_a_bomb_is_refused_or_read_within_bounds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "corpus").mkdir()
    read = BOMBS[name](tmp_path / "corpus")
    assert sum(file.stat().st_size for file in (tmp_path / "corpus").iterdir()) < 16 << 20
    assert_bounded(cost(read))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < DISK


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (lambda: b"x" * (BYTES + (BYTES >> 2)), r"memory=1\d{9}, error=None"),
        (lambda: bytes(2 * GIVE_UP), "MemoryError"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "exit code -9"),
        pytest.param(lambda: all(itertools.repeat(1)), "exit code -9", marks=pytest.mark.slow),
    ],
    ids=["large", "larger", "broken", "killed", "slow"],
)
def test_what_is_not_bounded_is_noticed(read: Reader, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        assert_bounded(cost(read))
