"""The words of a command, arranged for the parser.

A config replaces the options in front of it, so configs come first: those of a checkpoint or of the
run directory before all others. `trust` decides what they may import.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from residense.errors import UsageError
from residense.run import checkpoint_io
from residense.run.directory import RunDirectory
from residense.settings import configs, trust

TEXT = ("--data.text", "--data.text+", "--data.init_args.text", "--data.init_args.text+")
HELP = ("-h", "--help")
FIXED = ("scheme", "vectors", "min_frequency", "unit", "subwords")  # by a checkpoint
COLUMNS = ("token_column", "tag_column", "text_column", "label_column")
BYTES = "holds bytes that are not UTF-8; put such text into a file, with --data.encoding"


def arrange(command: str, words: Sequence[str]) -> list[str]:
    """Arrange the words of a command for the parser.

    Raises:
        UsageError: A config or checkpoint does not exist, is damaged or is not trusted.
    """
    if broken := [word for word in words if any("\ud800" <= char <= "\udfff" for char in word)]:
        raise UsageError(f"{broken[0]!r} {BYTES}")  # Python passes such bytes on as surrogates
    given, rest = _split(words)
    named = [configs.find(name) for name in given.config]
    trusted = set(",".join(given.trust).split(",")) | _modules_of_classes(rest)
    trusted |= trust.own_modules([configs.read(path) for path in named])
    run = RunDirectory(given.run_dir) if given.run_dir is not None else None
    ckpt = _find_checkpoint(command, given.ckpt_path, run)

    found = [str(path) for path in named]
    stored = None  # settings that somebody else may have written
    if command == "fit":
        if not found and run is not None and run.config.is_file():
            found = [str(run.config)]
            stored = configs.read(run.config)
            trusted |= trust.kept_modules(run.own_code)
            trust.refuse_untrusted(stored, str(run.config), trusted, run.own_code)
        found = found or _default_configs(rest, run)
    elif ckpt is not None:
        stored = _checkpoint_config(ckpt, command, rest)
        copies = RunDirectory(Path(ckpt).parent.parent).own_code
        trust.refuse_untrusted(stored, ckpt, trusted, copies)
        found = [_as_yaml(stored), *found]
    elif not any(word in HELP for word in rest):
        example = "--ckpt_path runs/<name>/<run>/checkpoints/best.ckpt"
        raise UsageError(f"{command} needs a trained model: {example}")
    configs.install(trusted if stored is not None else None)
    trust.allow([rest, stored], trusted if stored is not None else None)
    return [
        *(f"--config={config}" for config in found),
        *([f"--run_dir={run}"] if run is not None else []),
        *map(configs.find_fragment, rest),
        *([f"--ckpt_path={ckpt}"] if ckpt is not None else []),
        *_texts(given.text),
    ]


def _split(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options that are handled here, and all other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    parser.add_argument("--run_dir")
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument(*TEXT, dest="text", action="append", default=[])
    try:
        return parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        names = str(error.argument_name).split("/")
        given = next(name for name in names if name in words)
        raise UsageError(f"{given} needs a value") from None


def _texts(texts: list[str]) -> list[str]:
    """Return the option for the texts to predict, which are not parsed as YAML."""
    option = f"--data.text={_as_yaml(texts)}"
    if len(option) > configs.LARGEST:
        limit = f"more than {configs.LARGEST:,} characters"
        raise UsageError(f"--data.text: {limit}; give such texts by standard input")
    return [option] if texts else []


def _modules_of_classes(words: Sequence[str]) -> set[str]:
    """Return the modules that are named where a class may be; a file name trusts nothing."""
    found = set()
    option = ""
    for word in words:
        option, _, value = word.partition("=") if word.startswith("-") else (option, "", word)
        if option == "--data" or option.startswith(("--model", "--trainer")):
            found |= trust.modules(value)
    return found


def _default_configs(words: Sequence[str], run: RunDirectory | None) -> list[str]:
    """Return the config of `fit` without a config: one to show help on, or none."""
    if run is not None and (inside := run.runs_inside()):
        raise UsageError(f"{run} is not a run, but contains some: --run_dir {inside[-1]}")
    names = [word.partition("=")[0] for word in words]
    if any(name.endswith(".help") for name in names):
        return [str(configs.find("dense_ner.yaml"))]  # help on a part needs a whole
    if not any(name.startswith(("--model", *HELP)) for name in names):
        raise UsageError(
            f"fit needs a config, such as --config dense_ner.yaml; there are: {configs.known()}"
        )
    return []


def _find_checkpoint(command: str, value: str | None, run: RunDirectory | None) -> str | None:
    """Return the file that `--ckpt_path` means; `best` and `last` are in the run directory."""
    if value is None:
        return None
    path = Path(value)
    if value in ("best", "last"):
        if run is None:
            raise UsageError(
                f"--ckpt_path {value} needs --run_dir: the directory of the run to continue"
            )
        path = run.checkpoint(value)
        if command == "fit" and not path.exists():
            return None  # nothing to resume yet
    if not path.is_file():
        best = RunDirectory(path).best
        raise UsageError(f"no checkpoint {path}" + f", but there is {best}" * best.exists())
    return str(path)


def _checkpoint_config(path: str, command: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a checkpoint, without those of its corpus if another one is given."""
    settings = checkpoint_io.read(path).settings
    arguments = settings["data"]["init_args"]
    for name in FIXED:
        if _value_of(words, f"data.{name}") is not None:
            raise UsageError(f"--data.{name} is fixed by the checkpoint: leave it out")
    given = _value_of(words, "data.path")
    if command == "predict" or not _same_file(given, arguments.get("path")):
        _forget_corpus(arguments)
    arguments |= dict.fromkeys({"vectors"} & arguments.keys())
    return settings


def _forget_corpus(arguments: dict[str, Any]) -> None:
    """Reset the arguments of a data module that say where its corpus is and how it is laid out."""
    forget = {"path", "text", "files", "split", "vectors"}
    forget |= {name for name in COLUMNS if not isinstance(arguments.get(name), str)}
    arguments |= dict.fromkeys(forget & arguments.keys())
    if "folds" in arguments:
        arguments["folds"] = 0


def _same_file(given: str | None, own: str | None) -> bool:
    if given is None or own is None:
        return given is None
    return Path(given).resolve() == Path(own).resolve()


def _value_of(words: Sequence[str], name: str) -> str | None:
    """Return the last value of an option, given as one word or two."""
    found = None
    for i, word in enumerate(words):
        option, equals, value = word.removeprefix("--").replace(".init_args", "").partition("=")
        if option == name and word.startswith("--"):
            found = value if equals else "".join(words[i + 1 : i + 2])
    return found


def _as_yaml(value: Any) -> str:
    """Return JSON that YAML reads as the same: what cannot be printed is escaped as YAML does."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c == " " or c.isprintable() else f"\\U{ord(c):08x}" for c in text)
