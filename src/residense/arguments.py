"""The command line as typed, put in the order in which it means what the user expects.

Configs come first, in their order, so that options win over them wherever they stand; a bare config name is looked up
in `configs/`; the text to predict is taken as it is; a checkpoint brings its own model and data configuration.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import residense
from residense import configs, trust
from residense.errors import UsageError
from residense.messages import say

SETTINGS = ("hyper_parameters", "datamodule_hyper_parameters")
SUBCOMMANDS = ("fit", "validate", "test", "predict")
CONFIG, CKPT = ("-c", "--config"), ("--ckpt_path",)
TEXT = ("--data.text", "--data.text+", "--data.init_args.text", "--data.init_args.text+")
NAMED = (*CONFIG, *TEXT, *CKPT, "--trust")
VALUED = (*NAMED, "--run_dir")


def arrange(argv: Sequence[str]) -> list[str]:
    """Rewrite a command line for the parser.

    Raises:
        UsageError: a config or checkpoint that is not there.
    """
    place = next(
        (i for i, word in enumerate(argv) if word in SUBCOMMANDS and not _is_value(argv, i)), None
    )
    if place is None:
        return list(argv)
    subcommand = argv[place]
    _refuse_bytes(argv)
    options = list(_options([*argv[:place], *argv[place + 1 :]]))
    typed = {name: value for name, value in options if value is not None}
    rest = [word for name, value in options if name not in NAMED for word in _words(name, value)]
    named = [_find_config(value) for name, value in options if name in CONFIG and value is not None]
    trusted = (
        _trusted(options)
        | _modules_of_classes(rest)
        | trust.own_modules([configs.read(path) for path in named])
    )
    ckpt = _find_checkpoint(subcommand, typed.get("--ckpt_path"), typed.get("--run_dir"))
    found, stored = list(map(str, named)), None  # settings that somebody else may have written
    if subcommand == "fit":
        run_dir = Path(typed["--run_dir"]) if "--run_dir" in typed else None
        if not found and run_dir is not None and (own := run_dir / "config.yaml").is_file():
            found, stored, trusted = (
                [str(own)],
                configs.read(own),
                trusted | trust.kept_modules(run_dir),
            )
            trust.refuse_untrusted(stored, str(own), trusted)
        found = found or _default_configs(options, run_dir)
    elif ckpt is not None:
        stored = _checkpoint_config(ckpt, subcommand, options)
        trust.refuse_untrusted(stored, ckpt, trusted)
        found = [_as_yaml(stored), *found]
    elif not any(name in ("--help", "-h") for name, _ in options):
        raise UsageError(
            f"{subcommand} needs a trained model: --ckpt_path runs/<name>/<run>/checkpoints/best.ckpt"
        )
    configs.install(trusted if stored is not None else None)
    trust.allow([rest, stored], trusted if stored is not None else None)
    return [
        subcommand,
        *(f"--config={config}" for config in found),
        *map(configs.find_fragment, rest),
        *([f"--ckpt_path={ckpt}"] if ckpt is not None else []),
        *_texts([value for name, value in options if name in TEXT and value is not None]),
    ]


def _texts(texts: list[str]) -> list[str]:
    """The option for the texts to predict."""
    option = f"--data.text={_as_yaml(texts)}"
    if len(option) > configs.LARGEST:
        raise UsageError(
            f"--data.text: more than {configs.LARGEST:,} characters; give such texts by standard input"
        )
    return [option] if texts else []


def _trusted(options: Sequence[tuple[str, str | None]]) -> set[str]:
    """The modules that `--trust` names."""
    return {
        name
        for option, value in options
        if option == "--trust" and value
        for name in value.split(",")
    }


def _modules_of_classes(words: Sequence[str]) -> set[str]:
    """The modules that are named where a class can stand: a file name, such as that of a corpus, trusts nothing."""
    found, option = set(), ""
    for word in words:
        option, _, value = word.partition("=") if word.startswith("-") else (option, "", word)
        if option == "--data" or option.startswith(("--model", "--trainer")):
            found |= trust.modules(value)
    return found


def _find_config(name: str) -> Path:
    path = configs.find(name)
    configs.read(path)
    return path


def _refuse_bytes(argv: Sequence[str]) -> None:
    """Python hands over what is not UTF-8 as surrogates, which no file and no parser takes."""
    for word in argv:
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise UsageError(
                f"{word!r} holds bytes that are not UTF-8; put such text into a file, with --data.encoding"
            )


def _default_configs(options: Sequence[tuple[str, str | None]], run_dir: Path | None) -> list[str]:
    """What `fit` means without a config: one to show help on, or none."""
    if run_dir is not None and (inside := sorted(run_dir.glob("*/config.yaml"))):
        raise UsageError(f"{run_dir} is no run, it holds some: --run_dir {inside[-1].parent}")
    names = [name.partition("=")[0] for name, _ in options]
    if any(name.endswith(".help") for name in names):
        return [str(configs.find("dense_ner.yaml"))]  # help on a part needs a whole
    if not any(name.startswith(("--model", "--help", "-h")) for name in names):
        raise UsageError(
            f"fit needs a config, such as --config dense_ner.yaml; there are: {configs.known()}"
        )
    return []


def _is_value(argv: Sequence[str], place: int) -> bool:
    """Whether the word there belongs to the option in front of it."""
    return place > 0 and argv[place - 1].startswith("-") and "=" not in argv[place - 1]


def config_files(argv: Sequence[str]) -> list[str]:
    """The config files that are named on a command line and exist."""
    try:
        return [
            str(configs.find(value))
            for name, value in _options(argv)
            if name in CONFIG and value is not None
        ]
    except UsageError:
        return []


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Split into (option, value); words that are not one of the options in `VALUED` come as (word, None)."""
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name not in VALUED:
            yield word, None
        elif equals:
            yield name, value
        else:
            value = next(remaining, None)
            if value is None:
                raise UsageError(f"{name} needs a value")
            yield name, value


def _words(name: str, value: str | None) -> list[str]:
    return [name] if value is None else [f"{name}={value}"]


def _find_checkpoint(subcommand: str, value: str | None, run_dir: str | None) -> str | None:
    """The file that is meant; `best` and `last` are those of the run directory."""
    if value is None:
        return None
    if value in ("best", "last"):
        if run_dir is None:
            raise UsageError(
                f"--ckpt_path {value} needs --run_dir: the directory of the run to continue"
            )
        path = _readable(Path(run_dir) / "checkpoints" / f"{value}.ckpt")
        if subcommand == "fit" and not path.exists():
            return None  # nothing to continue yet: begin
    else:
        path = Path(value)
    if not path.is_file():
        best = path / "checkpoints" / "best.ckpt"
        raise UsageError(f"no checkpoint {path}" + f", but there is {best}" * best.exists())
    return str(path)


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def _readable(path: Path) -> Path:
    """The checkpoint at `path`, or the one before it where a full disk or a crash damaged it, or the best, if any."""
    older, best = previous(path), path.with_name("best.ckpt")
    if not path.exists() and not older.exists():
        if best.exists() and path != best:  # the run ended between its first two saves
            say(f"no {path}: going on from {best}")
            return best
        return path
    try:
        read_checkpoint(path)
        return path
    except UsageError as error:
        if not older.exists():
            hint = (
                f"; {best} may be whole: --ckpt_path best" if best.exists() and path != best else ""
            )
            raise UsageError(f"{error}, and there is none before it{hint}") from None
        say(f"{error}; going on from the one before, {older}")
    read_checkpoint(older)
    return older


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint, without running any code that it may hold, and compare all of it with its checksums.

    Raises:
        UsageError: the file is damaged or no checkpoint of this project.
    """
    if not Path(path).is_file():
        raise UsageError(f"no checkpoint {path}")
    try:
        checkpoint = _load(path)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path}: cannot be loaded as a checkpoint (more than tensors and settings)"
        ) from None
    except Exception as error:  # torch raises what it likes on damaged files
        reason = (
            re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0][:120]
            or type(error).__name__
        )
        raise UsageError(f"{path}: cannot be loaded as a checkpoint ({reason})") from None
    keys = set(checkpoint) if isinstance(checkpoint, dict) else set()
    missing = {*SETTINGS, "vocabulary", "state_dict", "pytorch-lightning_version"} - keys
    if missing:
        raise UsageError(
            f"{path}: not a checkpoint of this project, it lacks {', '.join(sorted(missing))}"
        )
    if not _is_sound(checkpoint, Path(path).stat().st_size):
        raise UsageError(
            f"{path}: not a checkpoint of this project, its settings or weights are something else"
        )
    _refuse_other_vocabulary(path, checkpoint)
    return checkpoint


def _refuse_other_vocabulary(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Refuse a vocabulary that has not the fields of this version."""
    from residense.data.vocabulary import Vocabulary

    vocabulary = checkpoint["vocabulary"]
    own, stored = (
        {field.name for field in fields(Vocabulary)},
        set(vocabulary if isinstance(vocabulary, dict) else ()),
    )
    lacks, unknown = ", ".join(sorted(own - stored)), ", ".join(sorted(map(ascii, stored - own)))
    differing = [f"lacks {lacks}"] * bool(lacks) + [f"has the unknown field {unknown[:80]}"] * bool(
        unknown
    )
    if differing:
        raise UsageError(
            f"{path}: its vocabulary {' and '.join(differing)}{other_version(checkpoint)}"
        )


def other_version(checkpoint: dict[str, Any]) -> str:
    """Which versions wrote and read a checkpoint, to append to an error; empty if they are the same."""
    versions = checkpoint.get("versions")
    version = str(versions.get("residense")) if isinstance(versions, dict) else ""
    if version == residense.__version__:
        return ""
    by = (
        f"by residense {version}"
        if re.fullmatch(r"[\w.+-]{1,40}", version)
        else "before versions were stored"
    )
    return f" (written {by}, read by residense {residense.__version__})"


def _load(path: str | Path) -> Any:
    """The content; torch itself looks at no checksums, and unpacks what is compressed, to any size."""
    if not zipfile.is_zipfile(path):
        raise ValueError("cut off, or something else")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is damaged")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _is_sound(checkpoint: dict[str, Any], file_size: int) -> bool:
    """Whether settings and weights are of the right kind, and no larger than a file of that size can hold."""
    settings, weights = [checkpoint[key] for key in SETTINGS], checkpoint["state_dict"]
    if not all(
        isinstance(part, dict) and isinstance(part.get("_class_path"), str) for part in settings
    ):
        return False
    if not isinstance(weights, dict) or not all(
        isinstance(weight, torch.Tensor) for weight in weights.values()
    ):
        return False
    sizes = [
        weight.numel() * weight.element_size() for weight in weights.values()
    ]  # an expanded one has no storage
    return (
        max(sizes, default=0) <= file_size
        and _is_bounded(settings)
        and _is_flat(checkpoint["vocabulary"])
    )


def _is_bounded(settings: object) -> bool:
    with suppress(RecursionError):
        return configs.size(settings) <= configs.LARGEST
    return False


def _is_flat(vocabulary: object) -> bool:
    """Whether a vocabulary holds plain values, and lists and dicts of them."""
    if not isinstance(vocabulary, dict):
        return False
    parts = [
        [*part, *part.values()] if isinstance(part, dict) else part for part in vocabulary.values()
    ]
    values = (value for part in parts for value in (part if isinstance(part, list) else [part]))
    return all(isinstance(value, str | int | float | None) for value in values)


def _checkpoint_config(
    path: str, subcommand: str, options: Sequence[tuple[str, str | None]]
) -> dict[str, Any]:
    """The model and data configuration that a checkpoint was trained with, without its own corpus if one is given."""
    checkpoint = read_checkpoint(path)
    data = class_config(checkpoint["datamodule_hyper_parameters"])
    forget = ["vectors"]
    own = data["init_args"].get("path")
    given = _value_of(options, "data.path")
    if subcommand == "predict" or not _same_file(
        given, own
    ):  # another corpus, of which its own splits say nothing
        forget += ["path", "text", "files", "split"]
        columns = ("token_column", "tag_column", "text_column", "label_column")
        forget += [name for name in columns if not isinstance(data["init_args"].get(name), str)]
        data["init_args"] |= {"folds": 0} if "folds" in data["init_args"] else {}
    for name in ("scheme", "vectors", "min_frequency", "unit", "subwords"):
        if _value_of(options, f"data.{name}") is not None:
            raise UsageError(f"--data.{name} is fixed by the checkpoint: leave it out")
    data["init_args"] |= {name: None for name in forget if name in data["init_args"]}
    return {"model": class_config(checkpoint["hyper_parameters"]), "data": data}


def _same_file(given: str | None, own: str | None) -> bool:
    return given in (None, own) or (
        own is not None and Path(str(given)).resolve() == Path(own).resolve()
    )


def _value_of(options: Sequence[tuple[str, str | None]], name: str) -> str | None:
    """The value that an option has been given last; empty if it stands as a word of its own."""
    words = [word for option, value in options for word in _words(option, value)]
    values = None
    for i, word in enumerate(words):
        option, equals, value = word.removeprefix("--").replace(".init_args", "").partition("=")
        if option == name and word.startswith("--"):
            values = value if equals else "".join(words[i + 1 : i + 2])
    return values


def class_config(hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters of a checkpoint in the form of a config: class_path and init_args."""
    init_args = {
        k: v for k, v in hyper_parameters.items() if k not in ("_class_path", "_instantiator")
    }
    return {"class_path": hyper_parameters["_class_path"], "init_args": init_args}


def _as_yaml(value: Any) -> str:
    """JSON that YAML reads as the same: what cannot be printed is escaped as YAML does."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c == " " or c.isprintable() else f"\\U{ord(c):08x}" for c in text)
