"""The parser of the command line, and what it has to complain about: what, where, and the nearest valid name."""

import ast
import inspect
import logging
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

import residense
from residense.errors import UsageError
from residense.messages import say
from residense.trust import origin

UNKNOWN_OPTION = (
    r"Option '([\w.]+)' is not accepted",
    r"not accept (?:option|nested key|key) '([\w.]+)'",
)
MISSING_MODULE = r"No module named '([\w.]+)'(?:.*?Got value: ([\w.]+\w))?"
SOURCE_FILE = (r"loop detected: (\S+\.py)", r"Expected a path but (\S+\.py) ")
UNRECOGNIZED = r"unrecognized arguments: (\S+)"
BOUND = r"Not of type \w+: (expected .+?, got .+?)(?:\. Got value|$)"
DENIED = r"Importing '([\w.]+)' is not allowed"
SYNTAX = r"(?:- |class: )(.+) \(([\w.-]+\.py), line (\d+)\)"
REQUIRED = r"arguments are required: ([\w, ]+)\. Got value: Namespace\(class_path='([\w.]+)'"
GROUP = (r"Unable to load config [\"'](.*?)[\"']",)
NUMBER_OR_CLASS = r"Expected a <class '(float|int|bool)'>\s+- Expected a dot import path.*?Given value: (\S+?)\.?\s"
MISSING_NAME = r"module '([\w.]+)' has no attribute '(\w+)'"
UNKNOWN_CLASS = (
    r"Expected a dot import path string: ([\w./-]*\w)",
    r"Unexpected import path format: (\S+)",
)
NOISE = r"Does not validate|Subtypes:|Errors:$|Given value|<class 'NoneType'>|Parser key|given class_path"


class Parser(LightningArgumentParser):
    """Complains in a few lines, refuses abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.logger = _dropped_options()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and the nearest valid name."""
        if (
            not self.exit_on_error
        ):  # a part of the command line: the parser of the whole will say it
            super().error(message, ex)
        raise UsageError(complaint(message, _option_names(self), _class_names()))


def _dropped_options() -> logging.Logger:
    """A logger that passes on one of the parser's remarks: options lost because their class was swapped."""
    logger = logging.getLogger("residense.parser")
    logger.handlers = logger.handlers or [_Losses()]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


class _Losses(logging.Handler):
    """Says, once each, which options are not used any more because another class was chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        loss = _loss(record.getMessage())
        if loss and loss not in self.said:
            self.said.add(loss)
            say(loss)


def _loss(remark: str) -> str | None:
    """The remark in our words; nothing where all that is dropped are the defaults of the class before."""
    found = re.search(
        r"change from '([\w.]+)' to '([\w.]+)', discarding init_args: (.*)\.$", remark, re.S
    )
    if not found:
        return None
    before, after, options = found.groups()
    try:
        dropped = ast.literal_eval(options)
    except ValueError:  # holds a class: only the default model and data do
        return None
    module, _, name = before.rpartition(".")
    defaults = inspect.signature(getattr(import_module(module), name)).parameters
    lost = {k: v for k, v in dropped.items() if k not in defaults or v != defaults[k].default}
    names = ", ".join(f"{k}={v}" for k, v in lost.items())
    return (
        f"{before.split('.')[-1]} was replaced by {after.split('.')[-1]}; not used: {names}"
        if lost
        else None
    )


def _option_names(parser: LightningArgumentParser) -> set[str]:
    parsers = [
        parser,
        *getattr(getattr(parser, "_subcommands_action", None), "choices", {}).values(),
    ]
    own = {
        action.dest for p in parsers for action in p._actions if not action.dest.endswith(".help")
    }
    return own | {
        name
        for cls in _classes()
        for name in getattr(cls.__init__, "__annotations__", ())
        if name != "return"
    }


def _class_names() -> set[str]:
    return {cls.__name__ for cls in _classes()}


def _classes() -> list[type]:
    return [
        item
        for item in (getattr(residense, name) for name in residense._HOME)
        if isinstance(item, type)
    ]


def complaint(message: str, options: Iterable[str], classes: Iterable[str]) -> str:
    """Shorten an error message of the parser to a few lines.

    Args:
        message: what the parser says.
        options: names of all options.
        classes: names of all classes that can be given.
    """
    place = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', message)))
    where = f"{place}: " if place else ""
    if found := _first((*UNKNOWN_OPTION, UNRECOGNIZED), message):
        name = found.split("=")[0].lstrip("-")
        if found[0] != "-" and re.search(UNRECOGNIZED, message):
            return f"{found} ... belongs to no option; put a value that holds spaces into quotes"
        return f"{where}there is no option {name}{_hint(name, options)}"
    if found := re.findall(BOUND, message, re.M):
        return f"{where}{found[-1]}"
    if found := re.search(DENIED, message):
        reason = f"it is not of this project, an installed package or {_trust(found[1])}"
        return f"{where}{found[1]} cannot be used here: {reason}"
    if found := re.search(SYNTAX, message):
        return f"{found[2]}:{found[3]}: {found[1]}"
    if "(<unknown>, line 1)" in message:
        return f"{where}several configs name different classes for it, which do not go together: give one of them"
    if found := _first(GROUP, message):
        return f"{where}a group of options, such as --{place}.NAME VALUE; got {found}"
    if found := re.search(REQUIRED, message):
        return f"{found[2]} needs a value for {found[1]}: --{place}.{found[1]}"
    if found := re.search(
        r"[Ee]xpected '([\w.]+)' to be a subclass of (?:<class ')?(\w+)", message
    ):
        return f"{where}{found[1]} is no {found[2]}"
    if found := _first(SOURCE_FILE, message):
        return f"{where}a class in {found} is given as {found.removesuffix('.py')}.Class"
    if found := re.search(MISSING_MODULE, message):
        return f"{where}{_no_module(found[1], found[2] or found[1])}"
    if found := re.search(NUMBER_OR_CLASS, message, re.S):
        return f"{where}expected {found[1]}, got {found[2]}"
    if found := re.search(MISSING_NAME, message):
        own = dir(sys.modules.get(found[1]))
        return f"{where}there is no class {found[2]} in {found[1]}{_hint(found[2], own)}"
    if found := _first(UNKNOWN_CLASS, message):
        return f"{where}{_no_class(found, set(classes))}"
    expected = [
        e
        for e in map(
            _readable, re.findall(r"Expected (?:an? )?(.+?)(?:\. Got value|$)", message, re.M)
        )
        if e
    ]
    got = re.search(r"(?:Given|Got) value: (.*?)(?:\. Got value|$)", message, re.M)
    if where and expected and got:
        return f"{where}expected {' or '.join(dict.fromkeys(expected))}, got {got[1]}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not re.search(NOISE, line)] or lines
    return "\n  ".join(line[:200] for line in dict.fromkeys(lines[:4]))


def locate(message: str, files: Iterable[str]) -> str:
    """Put `file:line` in front of a complaint about a name, where one of the configs has it."""
    found = re.search(r"there is no (?:option|class) (?:[\w-]+\.)*(\w+)", message)
    for file in files if found else ():
        for number, line in enumerate(Path(file).read_text(errors="replace").splitlines(), 1):
            if found and re.search(rf"\b{found[1]}\b", line.partition("#")[0]):
                return f"{file}:{number}: {message}"
    return message


def _first(patterns: Iterable[str], message: str) -> str | None:
    return next((found[1] for found in (re.search(p, message) for p in patterns) if found), None)


def _trust(name: str) -> str:
    module = name.partition(".")[0]
    return f"a file that is trusted: --trust {module}" if origin(module) == "own" else "your files"


def _no_module(module: str, wanted: str) -> str:
    if not wanted.startswith(module):
        return f"{wanted} cannot be imported: there is no module {module}"
    here = [path.stem for path in Path().glob("*.py")]
    return f"there is no module {module}, neither here nor installed{_hint(module, here)}"


def _no_class(name: str, classes: set[str]) -> str:
    if name.endswith((".yaml", ".yml")):
        return f"there is no file {name}, neither beside the config, nor here, nor in configs/"
    bare = name.rsplit(".", 1)[-1]
    own = "" if "." in name else " (one of your own is given as module.Class)"
    if bare in classes:
        return f"{bare} does not fit here"
    return f"there is no class {name}{_hint(bare, classes)}{own}"


def _readable(expected: str) -> str:
    """A type as the user knows it; empty where it says nothing."""
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", expected)
    if literal:
        return f"one of {literal[1]}"
    bare = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", expected)
    return "" if bare == "NoneType" or bare.startswith(("path but", "dot import")) else bare


def _hint(name: str, known: Iterable[str]) -> str:
    """The valid names most like this one, compared as a whole or else by their last part, or those it is a part of."""
    known = sorted(set(known))
    near = get_close_matches(name, known, n=2, cutoff=0.8)
    if not near:
        last = {k.rsplit(".", 1)[-1].lower(): k.rsplit(".", 1)[-1] for k in known}
        bare = name.rsplit(".", 1)[-1].lower()
        near = [last[k] for k in get_close_matches(bare, last, n=2, cutoff=0.6)]
        near = near or [last[k] for k in last if bare in k][:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""
