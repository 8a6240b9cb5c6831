"""Configs, checkpoints and tokenizers that expand without measure."""

import contextlib
import io
import itertools
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch

from residense import Vocabulary
from residense.cli import main
from residense.data.units import Units, subword_tokenizer
from residense.run.checkpoints import FORMAT

from .table import LONG, Bombs, Reader, written

BOMBS = Bombs()


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


@BOMBS.add
def yaml_aliases(folder: Path) -> Reader:
    return config(folder, ALIASES)


@BOMBS.add
def yaml_aliases_in_a_fragment(folder: Path) -> Reader:
    return config(
        folder, f"model: {written(folder, 'part.yaml', ALIASES)}\ndata: data/synthetic_en.yaml\n"
    )


@BOMBS.add
def yaml_aliases_in_a_fragment_of_a_fragment(folder: Path) -> Reader:
    part = written(
        folder, "part.yaml", f"class_path: Tagger\ninit_args:\n  encoder: {folder / 'inner.yaml'}\n"
    )
    written(folder, "inner.yaml", ALIASES)
    return config(folder, f"model: {part}\ndata: data/synthetic_en.yaml\n")


@BOMBS.add
def yaml_aliases_in_an_option(folder: Path) -> Reader:
    return command(
        "fit",
        "--config=dense_ner.yaml",
        f"--model.encoder={ALIASES}",
        f"--run_dir={folder / 'run'}",
    )


@BOMBS.add
def yaml_merged_keys(folder: Path) -> Reader:
    merged = "".join(
        f"{n}: &{n} {{<<: [{', '.join([f'*{m}'] * 9)}], {n}: 1}}\n"
        for m, n in itertools.pairwise("abcdefgh")
    )
    return config(folder, f"a: &a {{x: 1}}\n{merged}")


@BOMBS.add
def yaml_nested_lists(folder: Path) -> Reader:
    return config(folder, "model: " + "[" * 90_000)


@BOMBS.add
def yaml_nested_blocks(folder: Path) -> Reader:
    return config(folder, "".join(f"{' ' * i}a:\n" for i in range(400)))


@BOMBS.add
def yaml_very_many_values(folder: Path) -> Reader:
    return config(folder, "a: [" + "x, " * 3_000_000 + "]")


@BOMBS.add
def yaml_one_long_line(folder: Path) -> Reader:
    return config(folder, "name: " + "x" * 15_000_000)


@BOMBS.add
def yaml_a_number_of_very_many_digits(folder: Path) -> Reader:
    return config(folder, "seed_everything: " + "9" * 90_000)


def checkpoint(folder: Path, **parts: Any) -> Reader:
    """Predict with a checkpoint that has these parts."""
    content = {
        "hyper_parameters": {"class_path": "residense.Tagger", "init_args": {}},
        "datamodule_hyper_parameters": {
            "class_path": "residense.TaggingDataModule",
            "init_args": {},
        },
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


@BOMBS.add
def checkpoint_shared_settings(folder: Path) -> Reader:
    return checkpoint(
        folder,
        hyper_parameters={"class_path": "residense.Tagger", "init_args": {"head": doubled("x")}},
    )


@BOMBS.add
def checkpoint_shared_settings_of_the_data(folder: Path) -> Reader:
    settings = {"class_path": "residense.TaggingDataModule", "init_args": {"files": doubled("x")}}
    return checkpoint(folder, datamodule_hyper_parameters=settings)


@BOMBS.add
def checkpoint_long_shared_strings(folder: Path) -> Reader:
    return checkpoint(
        folder,
        hyper_parameters={
            "class_path": "residense.Tagger",
            "init_args": {"head": [LONG] * 100_000},
        },
    )


@BOMBS.add
def checkpoint_shared_words(folder: Path) -> Reader:
    vocabulary = asdict(Vocabulary(["a"], ["a"], ["O"], "IOB2", "word"))
    return checkpoint(folder, vocabulary=vocabulary | {"words": doubled("x")})


def doubling_tokenizer() -> str:
    """A tokenizer by whose normalizer each letter becomes two, 27 times."""
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    trained = json.loads(subword_tokenizer(["a b"] * 100, 100))
    return json.dumps(trained | {"normalizer": {"type": "Sequence", "normalizers": [double] * 27}})


@BOMBS.add
def tokenizer_that_makes_texts_longer(folder: Path) -> Reader:
    return lambda: Units("subword", doubling_tokenizer()).cut("a b")


@BOMBS.add
def checkpoint_a_tokenizer_that_makes_texts_longer(folder: Path) -> Reader:
    vocabulary = Vocabulary(["a"], ["a"], ["O"], "IOB2", "word", subwords=doubling_tokenizer())
    return checkpoint(folder, vocabulary=asdict(vocabulary))


@BOMBS.add
def checkpoint_nested_settings(folder: Path) -> Reader:
    nested: Any = "x"
    for _ in range(60):
        nested = {"class_path": "residense.Chain", "init_args": {"blocks": [nested]}}
    return checkpoint(
        folder,
        hyper_parameters={"class_path": "residense.Tagger", "init_args": {"encoder": nested}},
    )


@BOMBS.add
def checkpoint_a_weight_without_storage(folder: Path) -> Reader:
    return checkpoint(folder, state_dict={"head.score.weight": torch.zeros(1).expand(1 << 40)})


@BOMBS.add
def checkpoint_that_is_compressed(folder: Path) -> Reader:
    read = checkpoint(folder, state_dict={"weight": torch.zeros(400 << 20, dtype=torch.uint8)})
    stored = zipfile.ZipFile(folder / "bomb.ckpt")
    with stored, zipfile.ZipFile(folder / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in stored.infolist():
            archive.writestr(entry.filename, stored.read(entry))
    (folder / "packed.ckpt").replace(folder / "bomb.ckpt")
    return read
