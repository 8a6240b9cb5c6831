"""The parser of the command line: errors of one line, no abbreviations, no option lost silently."""

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
from torch.optim import AdamW

import residense
from residense.errors import UsageError
from residense.messages import say
from residense.run.checkpoint_io import read

# parts of the messages of jsonargparse
UNKNOWN_OPTION = r"(?:Option|option|nested key|key) '([\w.]+)'|unrecognized arguments: --([\w.]+)"
UNKNOWN_NAME = r"(?:Expected a dot import path string|Unexpected import path format): ([\w./-]*\w)"
DENIED = r"Importing '([\w.]+)' is not allowed"
DROPPED = r"change from '([\w.]+)' to '([\w.]+)', discarding init_args: (.*)\.$"
CONFIG_TEXT = 'Parser key "config"'  # a config that was given as text: that of a checkpoint


class Parser(LightningArgumentParser):
    """Parser that raises errors of one line and refuses abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.logger = logging.getLogger(__name__)
        self.logger.handlers = self.logger.handlers or [_DroppedOptions()]
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UsageError` of one line."""
        if not self.exit_on_error:  # the parser of a part: that of the whole repeats the message
            super().error(message, ex)
        raise UsageError(shorten(message, _option_names(self)))


def shorten(message: str, options: Iterable[str]) -> str:
    """Shorten a message of jsonargparse to one line: where, what, and the nearest known name.

    Args:
        message: Message of jsonargparse.
        options: Names of all options.
    """
    if message.startswith(CONFIG_TEXT):  # see with_source
        return message
    place = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', message)))
    where = f"{place}: " if place else ""
    if found := re.search(UNKNOWN_OPTION, message):
        name = found[1] or found[2]
        return f"{where}there is no option {name}{_nearest(name, options)}"
    if found := re.search(DENIED, message):
        return f"{where}{found[1]} cannot be used here: see --trust"
    reason = _last_line(message)
    if found := re.search(UNKNOWN_NAME, reason):
        hint = _nearest(found[1], [cls.__name__ for cls in _classes()])
        if found[1].endswith(".py"):
            hint = f"; a class in it is {found[1][:-3]}.CLASS"
        return f"{where}there is no class, file or value {found[1]} for this option{hint}"
    return where + reason


def _last_line(message: str) -> str:
    """Return the last line that says what is wrong, without the value that was given."""
    lines = re.split(r"\n *Given value", message)[0].splitlines()
    ignored = r"<class 'NoneType'>|in \"<unicode|^\s*$"
    kept = [line for line in lines if not re.search(ignored, line)] or [message]
    reason = kept[-1].rpartition("callable class: ")[2].partition(". Got value: N")[0]
    return reason.strip(" -")[:200]


def with_source(message: str, words: Sequence[str]) -> str:
    """Name the config or checkpoint that a message of the parser is about.

    Args:
        message: Message of one line.
        words: The command line, with `--option=value` as one word.
    """
    given = [word.partition("=") for word in words]
    files = [value for option, _, value in given if option == "--config" and value[0] != "{"]
    for option, _, ckpt in given:
        if option == "--ckpt_path" and message.startswith(CONFIG_TEXT):
            return message.replace(CONFIG_TEXT, ckpt, 1) + read(ckpt).saved_by()
    found = re.search(r"there is no (?:option|class, file or value) (?:[\w-]+\.)*(\w+)", message)
    typed = " ".join(option for option, _, _ in given)
    if found is None or re.search(rf"\b{found[1]}\b", typed):  # a mistake on the command line
        return message
    return _locate(found[1], files) + message


def _locate(name: str, files: Iterable[str]) -> str:
    """Return `file:line: ` of the config that contains a name; empty if none does."""
    for file in files:
        for number, line in enumerate(Path(file).read_text(errors="replace").splitlines(), 1):
            if re.search(rf"\b{name}\b", line.partition("#")[0]):
                return f"{file}:{number}: "
    return ""


def _nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is most similar, or those that contain the unknown one."""
    names = set(known)
    if name in names:  # a class of another kind
        return ""
    parts = [other for other in names if name.lower() in other.lower()]
    near = get_close_matches(name, names, n=1) or sorted(parts)[:2]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _option_names(parser: LightningArgumentParser) -> set[str]:
    own = {action.dest for action in parser._actions if not action.dest.endswith(".help")}
    own |= {f"model.optimizer.{name}" for name in inspect.signature(AdamW).parameters}
    return own.union(*(inspect.signature(cls).parameters for cls in _classes()))


def _classes() -> list[type]:
    public = (getattr(residense, name) for name in residense.__all__)
    return [item for item in public if isinstance(item, type)]


class _DroppedOptions(logging.Handler):
    """Prints, once each, which options are not used because another class replaced theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(DROPPED, record.getMessage(), re.S)
        message = _describe_dropped(*found.groups()) if found else ""
        if message and message not in self.printed:
            self.printed.add(message)
            say(message)


def _describe_dropped(before: str, after: str, options: str) -> str:
    """Name the dropped options that differ from the defaults of their class."""
    try:
        dropped = ast.literal_eval(options)
    except ValueError:  # contains a class: only the default model and data do
        return ""
    module, _, name = before.rpartition(".")
    defaults = inspect.signature(getattr(import_module(module), name)).parameters
    lost = [f"{k}={v}" for k, v in dropped.items() if k not in defaults or v != defaults[k].default]
    new = after.rpartition(".")[2]
    return f"{name} was replaced by {new}; not used: {', '.join(lost)}" if lost else ""
