"""Whatever a file, a config or a checkpoint holds: a clear error or a right result, no traceback, nothing half-written.

    pytest tests/test_hostile.py -m slow --n 40 --seed 1

draws 40 cases of each kind in this process, and half as many of all kinds as real commands. A failure names its case.
"""

import contextlib
import copy
import gzip
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from residense.cli import main
from residense.data.synthetic import Synthetic

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
Command = list[str]
LIMITS = [
    f"--trainer.{name}=1"
    for name in ("max_epochs", "limit_train_batches", "limit_val_batches", "limit_test_batches")
]
FIT = ["fit", "--run_dir=run", "--logger=csv", *LIMITS]
TAGS = [*FIT, "--config=dense_ner.yaml", "--data.synthetic.size=100"]
TEXTS = [*FIT, "--config=dense_cls.yaml", "--data.synthetic.size=100"]
SECONDS = 120  # longer is a hang
SENTENCES = Synthetic("en", 100).splits()["train"][:60]

NASTY = [
    *(
        b"",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\r",
        b"\x1a",
        b"\x85",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\t" * 40,
        b" ",
    ),
    *(
        char.encode()
        for char in ("\u2028", "\u202e", "\U0001f600", "e" + "\u0301" * 200, "\ufeff", "\u3000")
    ),
    *(
        b"NaN",
        b"-1",
        b"1e999",
        b"-inf",
        b"null",
        b"true",
        b"{}",
        b'"',
        b"'",
        b",",
        b";",
        b"|",
        b"#",
        b"9" * 5000,
    ),
    *(
        b"a" * 100_000,
        b"[" * 3000,
        b'{"a":' * 3000,
        b"../../etc/passwd",
        b"-DOCSTART-",
        b"# text = x",
        b"B-",
        b"I-X",
        b"%s",
    ),
]
VALUES: list[Any] = [
    None,
    -1,
    0,
    1,
    2,
    7,
    1000,
    0.5,
    -0.5,
    1.5,
    float("nan"),
    float("inf"),
    True,
    False,
    "",
    "x",
    "1e3",
]
VALUES += [
    [],
    {},
    [1, 2],
    [[]],
    {"a": 1},
    [None],
    "null",
    "../x",
    "x.yaml",
    "x.Y",
    "\u202e",
    "a\0b",
    "os.system",
    10**30,
]
LASTING = (
    "epochs",
    "steps",
    "devices",
    "num_nodes",
    "strategy",
    "accelerator",
    "max_time",
    "plugins",
    "run_dir",
    "size",
)


class Evil:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def mangled(rng: random.Random, data: bytes) -> bytes:
    """A file after an accident or two."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(ACCIDENTS)(rng, data)
    return data


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def hole(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(200) :]


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5) if data else 0):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(NASTY) + data[place:]


def field(rng: random.Random, data: bytes) -> bytes:
    """One field of a line becomes another, goes, or comes twice."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    parts = re.split(rb"([\t, :]+)", lines[place])
    which = rng.randrange(len(parts))
    parts[which : which + 1] = rng.choice(([], [rng.choice(NASTY)], [parts[which]] * 3))
    lines[place] = b"".join(parts)
    return b"\n".join(lines)


def shuffle(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def few(rng: random.Random, data: bytes) -> bytes:
    return b"\n".join(rng.sample(lines := data.split(b"\n"), min(len(lines), rng.randrange(4))))


def recode(rng: random.Random, data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32")), "replace"
    )


def ends(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"", b"\n\r")))


ACCIDENTS: list[Callable[[random.Random, bytes], bytes]] = [
    cut,
    hole,
    flip,
    insert,
    insert,
    field,
    field,
    field,
]
ACCIDENTS += [shuffle, few, recode, ends]


def spoiled(rng: random.Random, config: Any) -> Any:
    """A config in which one value is another."""
    config = copy.deepcopy(config)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any, path: str = "") -> None:
        for key in (
            value
            if isinstance(value, dict)
            else range(len(value))
            if isinstance(value, list)
            else ()
        ):
            if not any(name in f"{path}.{key}" for name in LASTING):
                places.append((value, key))
                walk(value[key], f"{path}.{key}")

    walk(config)
    holder, key = rng.choice(places)
    holder[key] = rng.choice(VALUES)
    return config


# -- kinds of cases: each writes its files where it stands, and returns a command ----------------------------------


def written(rng: random.Random, name: str, data: bytes) -> str:
    """The file, now and then packed, or packed and damaged."""
    data = mangled(rng, data)
    if rng.random() < 0.15:
        name, data = f"{name}.gz", gzip.compress(data)
        data = cut(rng, data) if rng.random() < 0.5 else data
    Path(name).write_bytes(data)
    return name


def columns(rng: random.Random, before: Path) -> Command:
    sep = rng.choice(("\t", " ", "  "))
    rows = ["\n".join(sep.join((w, "NN", t)) for w, t in zip(*s, strict=True)) for s in SENTENCES]
    suffix = rng.choice(("conll", "txt", "tsv", "bio"))
    return [
        *TAGS,
        f"--data.path={written(rng, f'corpus.{suffix}', chr(10).join(f'{r}{chr(10)}' for r in rows).encode())}",
    ]


def conllu(rng: random.Random, before: Path) -> Command:
    rows = []
    for words, tags in SENTENCES:
        cells = (
            f"{i}\t{w}\t{w}\t{t}\t_\t_\t0\troot\t_\t_"
            for i, (w, t) in enumerate(zip(words, tags, strict=True), 1)
        )
        rows.append("# sent_id = x\n" + "\n".join(cells) + "\n")
    path = written(rng, "corpus.conllu", "\n".join(rows).encode())
    return [*FIT, "--config=lstm_dense_pos.yaml", f"--data.path={path}"]


def jsonl(rng: random.Random, before: Path) -> Command:
    rows = [
        json.dumps({"tokens": words, "tags": tags}, ensure_ascii=rng.random() < 0.5)
        for words, tags in SENTENCES
    ]
    return [*TAGS, f"--data.path={written(rng, 'corpus.jsonl', chr(10).join(rows).encode())}"]


def table(rng: random.Random, before: Path) -> Command:
    sep, suffix = rng.choice(((",", "csv"), ("\t", "tsv"), (";", "csv")))
    rows = [
        f'"{" ".join(words)}"{sep}{tags[0] if rng.random() < 0.2 else rng.choice("abc")}'
        for words, tags in SENTENCES
    ]
    return [
        *TEXTS,
        f"--data.path={written(rng, f'texts.{suffix}', chr(10).join([f'text{sep}label', *rows]).encode())}",
    ]


def text_records(rng: random.Random, before: Path) -> Command:
    rows = [
        json.dumps({"text": " ".join(words), "label": rng.choice(("a", "b", 1))})
        for words, _ in SENTENCES
    ]
    return [*TEXTS, f"--data.path={written(rng, 'texts.jsonl', chr(10).join(rows).encode())}"]


def text_lines(rng: random.Random, before: Path) -> Command:
    rows = [f"__label__{rng.choice('ab')} {' '.join(words)}" for words, _ in SENTENCES]
    return [*TEXTS, f"--data.path={written(rng, 'texts.txt', chr(10).join(rows).encode())}"]


def vectors(rng: random.Random, before: Path) -> Command:
    rows = [
        f"{word} {' '.join(f'{rng.gauss(0, 1):.4f}' for _ in range(6))}"
        for word in ("the", "a", "Anna", "in", "to")
    ]
    path = written(
        rng, "vectors.txt", "\n".join([*["5 6"] * (rng.random() < 0.3), *rows, ""]).encode()
    )
    if rng.random() < 0.2:
        with zipfile.ZipFile("vectors.zip", "w") as archive:
            archive.write(path, rng.choice(("v.txt", "../v.txt", "/v.vec", "v.bin")))
        path = "vectors.zip"
    return [*TAGS, f"--data.vectors={path}"]


def subwords(rng: random.Random, before: Path) -> Command:
    from tokenizers import Tokenizer, models

    content = (
        Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
        .to_str()
        .encode()
    )
    return [*TAGS, f"--data.subwords={written(rng, 'tokenizer.json', content)}"]


def parquet(rng: random.Random, before: Path) -> Command:
    import datasets

    task = rng.choice((TAGS, TEXTS))
    data: dict[str, list[Any]] = {
        "tokens": [words for words, _ in SENTENCES],
        "tags": [tags for _, tags in SENTENCES],
    }
    if task is TEXTS:
        data = {
            "text": [" ".join(words) for words in data["tokens"]],
            "label": [rng.choice("ab") for _ in SENTENCES],
        }
    datasets.Dataset.from_dict(data).to_parquet("good.parquet")
    Path("corpus.parquet").write_bytes(mangled(rng, Path("good.parquet").read_bytes()))
    Path("good.parquet").unlink()
    return [*task, "--data.path=corpus.parquet"]


def config(rng: random.Random, before: Path) -> Command:
    """A resolved config in which a value is another, or any config after an accident."""
    if rng.random() < 0.6:
        resolved = yaml.safe_load((before / "config.yaml").read_text())
        text = yaml.safe_dump(spoiled(rng, resolved)).encode()
    else:
        text = mangled(rng, rng.choice(sorted((ROOT / "configs").glob("*.yaml"))).read_bytes())
    Path("own.yaml").write_bytes(text)
    return [
        *FIT,
        "--config=own.yaml",
        *(["--data.synthetic.size=100"] if b"synthetic" in text else []),
    ]


def options(rng: random.Random, before: Path) -> Command:
    """Options of the command line with values that are none."""
    resolved = yaml.safe_load((before / "config.yaml").read_text())
    words = []
    for _ in range(rng.randint(1, 2)):
        path, value = "", resolved
        while isinstance(value, dict) and value:
            key = rng.choice(sorted(value))
            path, value = f"{path}.{key}", value[key]
        path = path.strip(".").replace(".init_args", "").replace(".class_path", "")
        if not any(name in path for name in LASTING):
            words.append(f"--{path}={rng.choice(VALUES)}".replace("\0", ""))
    return [*TAGS, *words]


def checkpoint(rng: random.Random, before: Path) -> Command:
    """A checkpoint after an accident, one that lacks something, or something else."""
    whole = (before / "checkpoints" / "last.ckpt").read_bytes()
    if rng.random() < 0.4:
        Path("own.ckpt").write_bytes(rng.choice((cut, hole, flip, insert))(rng, whole))
    else:
        torch.save(foreign(rng, torch.load(io.BytesIO(whole), weights_only=True)), "own.ckpt")
    return [*rng.choice(USES), "--logger=csv", *LIMITS]


USES = [
    ["predict", "--ckpt_path=own.ckpt", "--data.text=Anna Smith", "--output=found.jsonl"],
    ["test", "--ckpt_path=own.ckpt"],
    ["fit", "--ckpt_path=own.ckpt", "--run_dir=run", "--config=dense_ner.yaml"],
    [
        "fit",
        "--init_from=own.ckpt",
        "--run_dir=run",
        "--config=dense_ner.yaml",
        "--data.synthetic.size=100",
    ],
]


def foreign(rng: random.Random, content: dict[str, Any]) -> Any:
    """What is not quite a checkpoint."""
    kind = rng.choice(("lacks", "spoiled", "class", "weights", "code", "other"))
    if kind == "lacks":
        content.pop(rng.choice(sorted(content)))
    elif kind == "spoiled":
        for name in rng.sample(
            ("hyper_parameters", "datamodule_hyper_parameters", "vocabulary", "loops"), 1
        ):
            content[name] = (
                spoiled(rng, content[name]) if rng.random() < 0.7 else rng.choice(VALUES)
            )
    elif kind == "class":
        name = rng.choice(
            (
                "os.system",
                "subprocess.Popen",
                "collections.Counter",
                "residense.Dense",
                "no.Such",
                "",
            )
        )
        content[rng.choice(("hyper_parameters", "datamodule_hyper_parameters"))]["_class_path"] = (
            name
        )
    elif kind == "weights":
        name = rng.choice(sorted(content["state_dict"]))
        content["state_dict"][name] = rng.choice(
            (torch.zeros(3), torch.zeros(0), "x", None, torch.full((2,), torch.nan))
        )
    elif kind == "code":
        content["callbacks"] = Evil()
    return (
        rng.choice((content, [content], "x", {"state_dict": {}}, torch.zeros(2)))
        if kind == "other"
        else content
    )


def input_texts(rng: random.Random, before: Path) -> Command:
    """Texts to predict."""
    suffix = rng.choice(("txt", "conll", "jsonl"))
    lines = [" ".join(words) for words, _ in SENTENCES]
    if suffix == "conll":
        lines = ["\n".join(words) + "\n" for words, _ in SENTENCES]
    elif suffix == "jsonl":
        lines = [json.dumps({"text": line}) for line in lines]
    path = written(rng, f"input.{suffix}", "\n".join(lines).encode())
    ckpt = before / "checkpoints" / "best.ckpt"
    return ["predict", f"--ckpt_path={ckpt}", f"--data.path={path}", "--output=found.jsonl"]


KINDS = [
    columns,
    conllu,
    jsonl,
    table,
    text_records,
    text_lines,
    vectors,
    subwords,
    parquet,
    config,
    options,
]
KINDS += [checkpoint, input_texts]


# -- what comes of them --------------------------------------------------------------------------------------------


def wrong(code: Any, errors: str) -> str | None:
    """What is wrong with how a command ended, if anything."""
    said = [i for i, line in enumerate(errors.splitlines()) if line.startswith("error: ")]
    if "Traceback" in errors:
        return "a traceback"
    if code == 2 and (
        len(said) != 1
        or len(errors.splitlines()) - said[0] > 5
        or max(map(len, errors.splitlines())) > 1500
    ):
        return "not one clear error"
    if code not in (0, 2) or (code == 0) == bool(said):
        return f"ended with {code}"
    return left_behind(code)


def left_behind(code: int) -> str | None:
    """What is half-written, or was run, if anything."""
    if Path("evil").exists():
        return "code of a checkpoint was run"
    for path in Path().rglob("*"):
        if path.name.startswith(".") and path.name not in (".lock", ".holder"):
            return f"{path} is left behind"
        if path.suffix == ".ckpt" and path.name != "own.ckpt":
            torch.load(path, weights_only=True)
        if path.name in (
            "test.json",
            "metrics.csv",
            "config.yaml",
        ) and not path.read_text().endswith("\n"):
            return f"{path} is cut off"
    found = Path("found.jsonl")
    if code == 0 and found.exists():
        found_texts = [json.loads(line)["text"] for line in found.read_text().split("\n")[:-1]]
        if Path("input.txt").exists() and found_texts != lines_of(Path("input.txt")):
            return "other texts than were given"
    return None


def lines_of(path: Path) -> list[str]:
    """One text a line, LF or CRLF; the last line ends, it does not begin another."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """In an empty folder, with time that is limited."""

    def hang(*_: Any) -> None:
        raise TimeoutError("a hang")

    folder.mkdir(parents=True)
    before, handler = Path.cwd(), signal.signal(signal.SIGALRM, hang)
    os.chdir(folder)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        os.chdir(before)


def in_process(command: Command) -> tuple[Any, str]:
    """How a command ended, and what it said of errors."""
    errors = io.StringIO()
    path = list(sys.path)
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code: Any = main(command)
        except BaseException:
            code = "an exception"
            traceback.print_exc()
    sys.path[:] = path
    os.environ.pop("RESIDENSE_RUN_DIR", None)
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)
    return code, errors.getvalue()


def as_command(command: Command) -> tuple[Any, str]:
    """The same of a process."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stderr


def failures(
    kinds: list[Any], n: int, seed: int, folder: Path, before: Path, run: Callable[[Command], Any]
) -> list[str]:
    """Cases that did not end as they should, with all that repeats them."""
    found = []
    for i in range(n):
        kind = kinds[i % len(kinds)]
        rng = random.Random(f"{kind.__name__} {seed} {i}")
        with standing_in(folder / f"{kind.__name__}-{i}"):
            command = kind(rng, before)
            code, errors = run(command)
            if fault := wrong(code, errors):
                found.append(f"{kind.__name__} {i}: {fault}: {command}\n{errors[-1500:]}")
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_hostile_input(
    kind: Any, request: pytest.FixtureRequest, tmp_path: Path, trained: Path
) -> None:
    n, seed = (int(str(request.config.getoption(name))) for name in ("n", "seed"))
    found = failures([kind], n, seed, tmp_path, trained, in_process)
    assert not found, f"{len(found)} of {n}, --seed {seed}:\n\n" + "\n\n".join(found)


def test_hostile_commands(request: pytest.FixtureRequest, tmp_path: Path, trained: Path) -> None:
    n, seed = (int(str(request.config.getoption(name))) for name in ("n", "seed"))
    found = failures(KINDS, max(1, n // 2), seed + 1, tmp_path, trained, as_command)
    assert not found, f"{len(found)}, --seed {seed}:\n\n" + "\n\n".join(found)
