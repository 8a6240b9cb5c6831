"""What the parser has to complain about, in a line that helps: what, where, and the nearest valid name."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

UNKNOWN_OPTION = (r"Option '([\w.]+)' is not accepted", r"not accept (?:option|nested key|key) '([\w.]+)'")
UNRECOGNIZED = r"unrecognized arguments: (\S+)"
UNKNOWN_CLASS = (
    r"Expected a dot import path string: ([\w./-]*\w)",
    r"module '[\w.]+' has no attribute '(\w+)'",
    r"No module named '([\w.]+)'",
    r"Unexpected import path format: (\S+)",
)


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
        return f"{where}there is no option {name}{_hint(name, options)}"
    if found := _first(UNKNOWN_CLASS, message):
        return f"{where}{_no_class(found, set(classes))}"
    expected = [e for e in map(_readable, re.findall(r"Expected (?:an? )?(.+?)(?:\. Got value|$)", message, re.M)) if e]
    got = re.search(r"(?:Given|Got) value: (.*?)(?:\. Got value|$)", message, re.M)
    if where and expected and got:
        return f"{where}expected {' or '.join(dict.fromkeys(expected))}, got {got[1]}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
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


def _no_class(name: str, classes: set[str]) -> str:
    if name.endswith((".yaml", ".yml")):
        return f"there is no file {name}, neither here nor in configs/"
    bare = name.rsplit(".", 1)[-1]
    if bare in classes:
        return f"{bare} does not fit here"
    return f"there is no class {name}{_hint(bare, classes)}"


def _readable(expected: str) -> str:
    """A type as the user knows it; empty where it says nothing."""
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", expected)
    if literal:
        return f"one of {literal[1]}"
    bare = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", expected)
    return "" if bare == "NoneType" or bare.startswith(("path but", "dot import")) else bare


def _hint(name: str, known: Iterable[str]) -> str:
    """The valid names most like this one, compared as a whole or else by their last part."""
    known = sorted(set(known))
    near = get_close_matches(name, known, n=2, cutoff=0.8)
    if not near:
        last = {k.rsplit(".", 1)[-1].lower(): k.rsplit(".", 1)[-1] for k in known}
        near = [last[k] for k in get_close_matches(name.rsplit(".", 1)[-1].lower(), last, n=2, cutoff=0.6)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
