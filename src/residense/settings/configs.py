"""Reading configs: YAML within bounds, and fragments that are found wherever the config that names them lies."""

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from residense.errors import UsageError

LARGEST = 100_000  # characters of a file, and of its content once all aliases are written out
INSTALLED = Path(__file__).parents[1] / "_configs"
SHIPPED = INSTALLED if INSTALLED.exists() else Path(__file__).parents[3] / "configs"

_yaml_load = get_loader("yaml")


def install(trusted: Collection[str] | None) -> None:
    """Have the parser read configs, fragments and values by these rules, seen from the working directory.

    Args:
        trusted: modules of the user that these may name; null for any, where all of them are the user's.
    """
    from residense.settings import (
        trust,  # which imports torch; scripts that read a config do not need it
    )

    folders = (Path.cwd(), *_folders())

    def load(text: str) -> Any:
        content = _parse(text)
        trust.allow(content, trusted)
        return content if isinstance(content, str) else _locate(content, (Path.cwd(), *folders))

    set_loader("yaml", load, (yaml.YAMLError,))


def _folders() -> tuple[Path, ...]:
    """Where configs and fragments are looked up by name."""
    return Path("configs").absolute(), SHIPPED


def _parse(text: str, load: Callable[[str], Any] = _yaml_load) -> Any:
    """Read YAML.

    Args:
        text: the YAML.
        load: reads it, by default as the parser does.

    Raises:
        yaml.YAMLError: it is malformed, or larger than a config can be.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"more than {LARGEST:,} characters")
    try:
        # without anchors nothing is larger than its text
        if "&" in text and size(yaml.compose(text)) > LARGEST:
            raise yaml.YAMLError(f"its aliases expand to more than {LARGEST:,} values")
        return load(text)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:  # a number of too many digits
        raise yaml.YAMLError(str(error)) from None


def size(content: object, known: dict[int, int] | None = None) -> int:
    """The number of values and characters in lists, dicts and YAML nodes, where what is shared counts each time."""
    known = {} if known is None else known
    content = content.value if isinstance(content, yaml.Node) else content
    if isinstance(content, str):
        return 1 + len(content)
    if not isinstance(content, dict | list | tuple | set):
        return 1
    if id(content) not in known:
        known[id(content)] = LARGEST + 1  # of what contains itself
        parts = (*content, *content.values()) if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(size(part, known) for part in parts)
    return known[id(content)]


def read(path: Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        UsageError: names the file, and the line where it is malformed.
    """
    try:
        if path.stat().st_size > 4 * LARGEST:
            raise yaml.YAMLError(f"more than {LARGEST:,} characters")
        content = _parse(path.read_text("utf-8"), yaml.safe_load)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict | None):
        raise UsageError(
            f"{path}: a config holds `option: value` lines, this holds {type(content).__name__}"
        )
    return content or {}


def find(name: str) -> Path:
    """The config of that name: an existing file, or one in `configs/`.

    Raises:
        UsageError: there is none.
    """
    found = _first(name, (Path(), *_folders()))
    if found is None:
        raise UsageError(f"no config {name}, neither here nor in configs/; there are: {known()}")
    return found


def find_fragment(word: str) -> str:
    """A word of the command line; a value that names a fragment, such as block/lstm.yaml, as its path."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{_path(value, (Path(), *_folders()))}"


def known() -> str:
    """The names of all configs."""
    return ", ".join(sorted({path.name for folder in _folders() for path in folder.glob("*.yaml")}))


def _locate(content: Any, folders: Iterable[Path]) -> Any:
    """The content with a path in place of each name of a fragment."""
    if isinstance(content, dict):
        return {key: _locate(value, folders) for key, value in content.items()}
    if isinstance(content, list):
        return [_locate(value, folders) for value in content]
    return _path(content, folders) if isinstance(content, str) else content


def _path(value: str, folders: Iterable[Path]) -> str:
    found = _first(value, folders) if value.endswith((".yaml", ".yml")) else None
    return value if found is None else os.fspath(found)


def _first(name: str, folders: Iterable[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as a file gives them: with lists for tuples, and without their source."""
    return _plain(settings)


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key != "__path__"}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def differences(before: object, now: object, place: str = "") -> dict[str, tuple[object, object]]:
    """Return the options that differ between two configs, as typed, with both values."""
    before, now = _plain(before), _plain(now)
    name = place.replace(".init_args", "")
    if not isinstance(before, dict) or not isinstance(now, dict):
        return {} if before == now else {name: (before, now)}
    classes = before.get("class_path"), now.get("class_path")
    if classes[0] != classes[1]:  # the options of two classes cannot be compared
        return {name: classes}
    found: dict[str, tuple[object, object]] = {}
    for key in {**before, **now}:
        if key != "dict_kwargs":
            inner = f"{place}.{key}" if place else key
            found |= differences(before.get(key), now.get(key), inner)
    return found
