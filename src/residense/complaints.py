"""What the parser has to complain about, in a few lines that help: what, where, and the nearest valid name."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

PATTERNS = {
    "option": (
        r"Option '([\w.]+)' is not accepted",
        r"does not accept (?:option|nested key|key) '([\w.]+)'",
        r"unrecognized arguments: (\S+)",
        r"No action for key \"?([\w.]+)",
        r'[Kk]ey "([\w.]+)" is not expected',
    ),
    "class": (
        r"Expected a dot import path string: ([\w.]+)",
        r"module '[\w.]+' has no attribute '(\w+)'",
        r"[Ii]mport(?:ing)? (?:error|failed).*?'([\w.]+)'",
        r"No module named '([\w.]+)'",
    ),
}
PLACE = re.compile(r"Problem with given class_path '([\w.]+)'|Parser key \"([\w.]+)\"|class_path='([\w.]+)'")


def complaint(message: str, options: Iterable[str], classes: Iterable[str]) -> str:
    """Shorten an error message of the parser to at most five lines.

    Args:
        message: what the parser says.
        options: names of all options.
        classes: names of all classes that can be given.
    """
    for kind, known in (("option", options), ("class", classes)):
        for pattern in PATTERNS[kind]:
            found = re.search(pattern, message)
            if found:
                return _unknown(kind, found[1].split("=")[0], message, known)
    return _first_lines(message)


def _unknown(kind: str, name: str, message: str, known: Iterable[str]) -> str:
    places = [next(filter(None, groups)) for groups in PLACE.findall(message)]
    where = f" in {' > '.join(dict.fromkeys(p.split('.')[-1] for p in places))}" if places else ""
    bare = name.lstrip("-").rsplit(".", 1)[-1] if kind == "class" else name.lstrip("-")
    near = _nearest(bare, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no {kind} {name}{where}{hint}"


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Valid names like this one, compared by their last part if the whole finds none."""
    known = sorted(set(known))
    near = get_close_matches(name, known, n=2, cutoff=0.75)
    if near:
        return near
    last = {k.rsplit(".", 1)[-1]: k for k in reversed(known)}
    lower = {k.lower(): k for k in last}
    return [lower[k] for k in get_close_matches(name.rsplit(".", 1)[-1].lower(), lower, n=2, cutoff=0.6)]


def _first_lines(message: str) -> str:
    """Drop what repeats itself, and the dump of types that nobody reads."""
    skip = ("Subtypes:", "Given value type", "Does not validate against any", "Errors:")
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    kept = [line for line in dict.fromkeys(lines) if not line.startswith(skip)]
    return "\n  ".join(line if len(line) <= 200 else f"{line[:197]}..." for line in kept[:4])
