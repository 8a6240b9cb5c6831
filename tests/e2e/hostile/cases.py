"""Kinds of hostile input: each writes its files where it stands, and returns a command."""

import gzip
import io
import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml

from residense.data.synthetic import Synthetic

from ..commands import ROOT
from .accidents import LASTING, VALUES, corrupted, cut, flip, hole, insert, mangled

Command = list[str]
LIMITS = [
    f"--trainer.{name}=1"
    for name in ("max_epochs", "limit_train_batches", "limit_val_batches", "limit_test_batches")
]
FIT = ["fit", "--run_dir=run", "--logger=csv", *LIMITS]
TAGS = [*FIT, "--config=dense_ner.yaml", "--data.synthetic.size=100"]
TEXTS = [*FIT, "--config=dense_cls.yaml", "--data.synthetic.size=100"]
SENTENCES = Synthetic("en", 100).splits()["train"][:60]


class Evil:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


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
        text = yaml.safe_dump(corrupted(rng, resolved)).encode()
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
    kind = rng.choice(("lacks", "corrupted", "class", "weights", "code", "other"))
    if kind == "lacks":
        content.pop(rng.choice(sorted(content)))
    elif kind == "corrupted":
        for name in rng.sample(
            ("hyper_parameters", "datamodule_hyper_parameters", "vocabulary", "loops"), 1
        ):
            content[name] = (
                corrupted(rng, content[name]) if rng.random() < 0.7 else rng.choice(VALUES)
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
        content[rng.choice(("hyper_parameters", "datamodule_hyper_parameters"))]["class_path"] = (
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
