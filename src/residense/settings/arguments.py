"""The command line as typed, in the order that the parser needs.

Lightning lets a config replace the options in front of it, parses texts as YAML, and lets the
settings of a checkpoint replace what was typed. Here configs come first, those of a checkpoint or of
the run directory before all others; what they may import is decided by `trust`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from residense.errors import UsageError
from residense.run import checkpoint_io
from residense.run.directory import RunDirectory
from residense.settings import configs, trust

SUBCOMMANDS = ("fit", "validate", "test", "predict")
CONFIG = ("-c", "--config")
TEXT = ("--data.text", "--data.text+", "--data.init_args.text", "--data.init_args.text+")
NAMED = (*CONFIG, *TEXT, "--ckpt_path", "--trust")  # options that are read here
VALUED = (*NAMED, "--run_dir")
HELP = ("-h", "--help")
FIXED = ("scheme", "vectors", "min_frequency", "unit", "subwords")  # by a checkpoint
COLUMNS = ("token_column", "tag_column", "text_column", "label_column")
BYTES = "holds bytes that are not UTF-8; put such text into a file, with --data.encoding"

Options = Sequence[tuple[str, str | None]]


def arrange(argv: Sequence[str]) -> list[str]:
    """Rewrite a command line for the parser.

    Raises:
        UsageError: a config or checkpoint does not exist, is damaged or not trusted.
    """
    if not argv or argv[0] in HELP:
        return list(argv)
    subcommand, *words = argv
    if subcommand not in SUBCOMMANDS:
        raise UsageError(f"the first word is one of {', '.join(SUBCOMMANDS)}; got {subcommand}")
    if broken := [word for word in words if any("\ud800" <= char <= "\udfff" for char in word)]:
        raise UsageError(f"{broken[0]!r} {BYTES}")  # Python passes such bytes on as surrogates
    options = list(_options(words))
    typed = {name: value for name, value in options if value is not None}
    rest = [word for name, value in options if name not in NAMED for word in _words(name, value)]
    named = [configs.find(value) for name, value in options if name in CONFIG and value is not None]
    contents = [configs.read(path) for path in named]
    trusted = {m for name, value in options if name == "--trust" for m in str(value).split(",")}
    trusted |= _modules_of_classes(rest) | trust.own_modules(contents)
    run = RunDirectory(typed["--run_dir"]) if "--run_dir" in typed else None
    ckpt = _find_checkpoint(subcommand, typed.get("--ckpt_path"), run)

    found = [str(path) for path in named]
    stored = None  # settings that somebody else may have written
    if subcommand == "fit":
        if not found and run is not None and run.config.is_file():
            found = [str(run.config)]
            stored = configs.read(run.config)
            trusted |= trust.kept_modules(run.own_code)
            trust.refuse_untrusted(stored, str(run.config), trusted)
        found = found or _default_configs(options, run)
    elif ckpt is not None:
        stored = _checkpoint_config(ckpt, subcommand, options)
        trust.refuse_untrusted(stored, ckpt, trusted)
        found = [_as_yaml(stored), *found]
    elif not any(name in HELP for name, _ in options):
        example = "--ckpt_path runs/<name>/<run>/checkpoints/best.ckpt"
        raise UsageError(f"{subcommand} needs a trained model: {example}")
    configs.install(trusted if stored is not None else None)
    trust.allow([rest, stored], trusted if stored is not None else None)
    return [
        subcommand,
        *(f"--config={config}" for config in found),
        *map(configs.find_fragment, rest),
        *([f"--ckpt_path={ckpt}"] if ckpt is not None else []),
        *_texts([value for name, value in options if name in TEXT and value is not None]),
    ]


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Split into (option, value); words other than the options in `VALUED` as (word, None)."""
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name not in VALUED:
            yield word, None
            continue
        if not equals:
            value = next(remaining, None)
        if value is None:
            raise UsageError(f"{name} needs a value")
        yield name, value


def _words(name: str, value: str | None) -> list[str]:
    return [name] if value is None else [f"{name}={value}"]


def _texts(texts: list[str]) -> list[str]:
    """The option for the texts to predict, which are taken as they are."""
    option = f"--data.text={_as_yaml(texts)}"
    if len(option) > configs.LARGEST:
        limit = f"more than {configs.LARGEST:,} characters"
        raise UsageError(f"--data.text: {limit}; give such texts by standard input")
    return [option] if texts else []


def _modules_of_classes(words: Sequence[str]) -> set[str]:
    """The modules that are named where a class may be; a file name trusts nothing."""
    found = set()
    option = ""
    for word in words:
        option, _, value = word.partition("=") if word.startswith("-") else (option, "", word)
        if option == "--data" or option.startswith(("--model", "--trainer")):
            found |= trust.modules(value)
    return found


def _default_configs(options: Options, run: RunDirectory | None) -> list[str]:
    """The config of `fit` without a config: one to show help on, or none."""
    if run is not None and (inside := run.runs_inside()):
        raise UsageError(f"{run} is no run, it holds some: --run_dir {inside[-1]}")
    names = [name.partition("=")[0] for name, _ in options]
    if any(name.endswith(".help") for name in names):
        return [str(configs.find("dense_ner.yaml"))]  # help on a part needs a whole
    if not any(name.startswith(("--model", *HELP)) for name in names):
        raise UsageError(
            f"fit needs a config, such as --config dense_ner.yaml; there are: {configs.known()}"
        )
    return []


def _find_checkpoint(subcommand: str, value: str | None, run: RunDirectory | None) -> str | None:
    """The file that `--ckpt_path` means; `best` and `last` are in the run directory."""
    if value is None:
        return None
    path = Path(value)
    if value in ("best", "last"):
        if run is None:
            raise UsageError(
                f"--ckpt_path {value} needs --run_dir: the directory of the run to continue"
            )
        path = run.checkpoint(value)
        if subcommand == "fit" and not path.exists():
            return None  # nothing to resume yet
    if not path.is_file():
        best = RunDirectory(path).best
        raise UsageError(f"no checkpoint {path}" + f", but there is {best}" * best.exists())
    return str(path)


def _checkpoint_config(path: str, subcommand: str, options: Options) -> dict[str, Any]:
    """The settings of a checkpoint, without those of its corpus if another one is given."""
    settings = checkpoint_io.read(path).settings
    arguments = settings["data"]["init_args"]
    for name in FIXED:
        if _value_of(options, f"data.{name}") is not None:
            raise UsageError(f"--data.{name} is fixed by the checkpoint: leave it out")
    given = _value_of(options, "data.path")
    if subcommand == "predict" or not _same_file(given, arguments.get("path")):
        forget_corpus(arguments)
    arguments |= dict.fromkeys({"vectors"} & arguments.keys())
    return settings


def forget_corpus(arguments: dict[str, Any]) -> None:
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


def _value_of(options: Options, name: str) -> str | None:
    """The last value of an option, as one word or two."""
    words = [word for option, value in options for word in _words(option, value)]
    found = None
    for i, word in enumerate(words):
        option, equals, value = word.removeprefix("--").replace(".init_args", "").partition("=")
        if option == name and word.startswith("--"):
            found = value if equals else "".join(words[i + 1 : i + 2])
    return found


def _as_yaml(value: Any) -> str:
    """JSON that YAML reads as the same: what cannot be printed is escaped as YAML does."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c == " " or c.isprintable() else f"\\U{ord(c):08x}" for c in text)
