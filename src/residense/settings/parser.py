"""The parser of the command line: errors in one line, no abbreviations, no option lost silently."""

import ast
import inspect
import logging
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

import residense
from residense.errors import UsageError
from residense.messages import say
from residense.run.checkpoint_io import read

UNKNOWN_OPTION = r"(?:Option|option|nested key|key) '([\w.]+)'|unrecognized arguments: --([\w.]+)"
UNKNOWN_CLASS = r"(?:Expected a dot import path string|Unexpected import path format): ([\w./-]*\w)"
UNKNOWN_NAME = r"module '([\w.]+)' has no attribute '(\w+)'"
DENIED = r"Importing '([\w.]+)' is not allowed"
OF_TEXT = 'Parser key "config"'  # a config that was given as text, as that of a checkpoint
# a line that names a union instead of what is wrong with it, or repeats what was given
FRAME = (
    r"Does not validate|Subtypes:|Errors:$|Given value|Expected a path but|in \"<unicode"
    r"|Expected a <class '(?:NoneType|list)'>|given class_path|Parser key \"\w+\":$"
)


class Parser(LightningArgumentParser):
    """Raises errors of one line; refuses abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.logger = _dropped_options()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UsageError` of one line."""
        if not self.exit_on_error:  # of a part: the parser of the whole repeats the message
            super().error(message, ex)
        raise UsageError(shorten(message, _option_names(self)))


def shorten(message: str, options: Iterable[str]) -> str:
    """Shorten a message of jsonargparse to one line: where, what, and the nearest known name.

    Args:
        message: message of jsonargparse.
        options: names of all options.
    """
    if message.startswith(OF_TEXT):  # see with_source
        return message
    place = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', message)))
    where = f"{place}: " if place else ""
    if found := re.search(UNKNOWN_OPTION, message):
        name = found[1] or found[2]
        return f"{where}there is no option {name}{_nearest(name, options)}"
    if found := re.search(DENIED, message):
        return f"{where}{found[1]} cannot be used here: see --trust"
    reason = _reason(message)
    if found := re.search(UNKNOWN_NAME, reason):
        return f"{where}there is no class {found[2]} in {found[1]}"
    if found := re.search(UNKNOWN_CLASS, reason):
        hint = _nearest(found[1], (cls.__name__ for cls in _classes()))
        reason = re.sub(UNKNOWN_CLASS, r"there is no class or file \1 for this option", reason)
        return f"{where}{reason}{hint}"
    return f"{where}{reason}"


def _reason(message: str) -> str:
    """The innermost lines of a message; several are the members of a union."""
    lines = [line.rstrip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not re.search(FRAME, line)] or lines[-1:]
    indent = max(_indent(line) for line in lines)
    inner = (line.strip(" -") for line in lines if _indent(line) == indent)
    texts = (
        line.rpartition("callable class: ")[2].partition(". Got value: N")[0] for line in inner
    )
    return ", or ".join(dict.fromkeys(text[:200] for text in texts))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" -"))


def with_source(message: str, words: Sequence[str]) -> str:
    """Name the config or checkpoint that a message of the parser is about."""
    given = [word.partition("=") for word in words]
    files = [value for option, _, value in given if option == "--config" and value[0] != "{"]
    message = _locate(message, files)
    for option, _, ckpt in given:
        if option == "--ckpt_path" and message.startswith(OF_TEXT):
            return message.replace(OF_TEXT, ckpt, 1) + read(ckpt).saved_by()
    return message


def _locate(message: str, files: Iterable[str]) -> str:
    """Put `file:line` in front of a message about an unknown name that a config contains."""
    found = re.search(r"there is no (?:option|class or file) (?:[\w-]+\.)*(\w+)", message)
    for file in files if found else ():
        for number, line in enumerate(Path(file).read_text(errors="replace").splitlines(), 1):
            if found and re.search(rf"\b{found[1]}\b", line.partition("#")[0]):
                return f"{file}:{number}: {message}"
    return message


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known names that are most like this one, by the whole name or by its last part."""
    known = set(known)
    if name in known:  # of another kind
        return ""
    near = get_close_matches(name, known, n=2, cutoff=0.8)
    if not near:
        last = {other.rpartition(".")[2] for other in known}
        bare = name.rpartition(".")[2]
        near = get_close_matches(bare, last, n=2, cutoff=0.6)
        near = near or sorted(other for other in last if bare.lower() in other.lower())[:2]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _option_names(parser: LightningArgumentParser) -> set[str]:
    subcommands = getattr(getattr(parser, "_subcommands_action", None), "choices", {})
    actions = (action for p in (parser, *subcommands.values()) for action in p._actions)
    own = {action.dest for action in actions if not action.dest.endswith(".help")}
    return own.union(*(inspect.signature(cls).parameters for cls in _classes()))


def _classes() -> list[type]:
    public = (getattr(residense, name) for name in residense.__all__)
    return [item for item in public if isinstance(item, type)]


# -- options that are lost because their class was replaced -------------------------------------------


def _dropped_options() -> logging.Logger:
    """The logger that jsonargparse reports such options to."""
    logger = logging.getLogger("residense.settings.parser")
    logger.handlers = logger.handlers or [_Losses()]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


class _Losses(logging.Handler):
    """Prints, once each, which options are ignored because another class was chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        loss = _loss(record.getMessage())
        if loss and loss not in self.printed:
            self.printed.add(loss)
            say(loss)


def _loss(remark: str) -> str | None:
    """The options that differ from the defaults of the class that was replaced, if any."""
    pattern = r"change from '([\w.]+)' to '([\w.]+)', discarding init_args: (.*)\.$"
    found = re.search(pattern, remark, re.S)
    if not found:
        return None
    before, after, options = found.groups()
    try:
        dropped = ast.literal_eval(options)
    except ValueError:  # contains a class: only the default model and data do
        return None
    module, _, name = before.rpartition(".")
    defaults = inspect.signature(getattr(import_module(module), name)).parameters
    lost = [f"{k}={v}" for k, v in dropped.items() if k not in defaults or v != defaults[k].default]
    new = after.rpartition(".")[2]
    return f"{name} was replaced by {new}; not used: {', '.join(lost)}" if lost else None
