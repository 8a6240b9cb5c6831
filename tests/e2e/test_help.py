"""The public API is documented by `--help` alone: each part, and each of its options."""

import inspect
import re
from collections.abc import Callable

import jsonargparse
import pytest
import torch

import residense
from residense.cli import main

GIVEN = {
    "in_dim",
    "out_dim",
    "layout",
    "place",
    "sizes",
    "legal",
    "encoder_norm",
    "embedding_dim",
    "dim",
    "block",
    "num_chars",
    "p",
    "vocabulary",
}  # by what is around a part, not by the user
PUBLIC = {name: getattr(residense, name) for name in residense.__all__}
CLASSES = {name: part for name, part in PUBLIC.items() if inspect.isclass(part)}
PARTS = [name for name, part in CLASSES.items() if not issubclass(part, tuple)]


def shown(part: type) -> tuple[str, dict[str, str]]:
    """What `--help` says of a class, and of each of its options."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(part, "it", fail_untyped=False)
    actions = {a.dest.removeprefix("it."): a for a in parser._actions if a.dest.startswith("it.")}
    helps = {
        name: str(action.help or "").strip() for name, action in actions.items() if "." not in name
    }
    return parser.format_help(), helps


@pytest.mark.parametrize("name", PARTS)
def test_each_part_and_option_says_what_it_is(name: str) -> None:
    part = PUBLIC[name]
    assert part.__doc__ and part.__doc__.strip()[0].isupper(), f"{name} has no docstring"
    text, helps = shown(part)
    first = part.__doc__.strip().split("\n")[0].split("   (")[0].rstrip(":.")
    assert first.split()[0] in text
    silent = [
        option for option, said in helps.items() if option not in GIVEN and len(said.split()) < 2
    ]
    assert not silent, f"{name}: --help does not say what {', '.join(silent)} is"


@pytest.mark.parametrize("name", PARTS)
def test_each_method_says_what_it_does(name: str) -> None:
    part = PUBLIC[name]
    own = {n: m for n, m in vars(part).items() if inspect.isfunction(m) and n[0] != "_"}
    known = set(dir(torch.nn.Module)) | {n for base in part.__mro__[1:] for n in vars(base)}
    assert not [n for n, method in own.items() if n not in known and not method.__doc__]


def test_each_option_of_the_command_line_says_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = re.sub(r"\n {10,}", " ", capsys.readouterr().out)
    entries = re.findall(r"^  (--\w[\w.]*)\b[^\n]*?(?: {2,}| )(.*)$", text, re.M)
    own = (
        "--name",
        "--run_dir",
        "--logger",
        "--project",
        "--output",
        "--init_from",
        "--save_every_n_steps",
    )
    own += ("--test_after_fit", "--ema.decay", "--ckpt_path")
    said = dict(entries)
    assert [name for name in own if name not in said] == []
    assert [name for name in own if not re.search(r"[a-z]{3,} [a-z]", said[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("model", "Tagger"),
        ("data", "TaggingDataModule"),
        ("model.encoder", "Encoder"),
        ("model.encoder.branch", "Branch"),
        *(
            ("model.encoder.connection", name)
            for name in PARTS
            if issubclass(PUBLIC[name], residense.Connection)
        ),
        *(
            ("model.encoder.block", name)
            for name in ("Conv", "LSTM", "GRU", "Attention", "FeedForward", "Sequential")
        ),
    ],
)
def test_help_on_a_class_lists_its_options(
    place: str, name: str, fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        fit(f"--{place}.help={name}")
    assert not ended.value.code
    text = capsys.readouterr().out
    missing = [
        o
        for o in shown(PUBLIC[name])[1]
        if o not in GIVEN | {"dim", "depth"} and f".{o}" not in text
    ]
    assert not missing, text
