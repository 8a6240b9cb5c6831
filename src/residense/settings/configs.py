"""Reading configs: YAML of limited size, and fragments that are found by name."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from residense.errors import UsageError

LARGEST = 100_000  # characters of a file, and of its content with all aliases expanded
INSTALLED = Path(__file__).parents[1] / "_configs"
SHIPPED = INSTALLED if INSTALLED.exists() else Path(__file__).parents[3] / "configs"

_yaml_load = get_loader("yaml")


def install(trusted: Collection[str] | None) -> None:
    """Make the parser read configs, fragments and values by the rules of this module.

    Args:
        trusted: The user's modules that these may name; null for any, if the settings are the
            user's.
    """
    from residense.settings import trust  # imports torch, which scripts that read a config avoid

    start = Path.cwd()  # the parser works in the folder of the config that it reads
    folders = _folders()

    def load(text: str) -> Any:
        content = _parse(text)
        trust.allow(content, trusted)
        if isinstance(content, str):
            return content
        return _with_paths(content, (Path.cwd(), start, *folders))

    set_loader("yaml", load, (yaml.YAMLError,))


def _folders() -> tuple[Path, ...]:
    """Return where configs and fragments are looked up by name."""
    return Path("configs").absolute(), SHIPPED


def _parse(text: str, load: Callable[[str], Any] = _yaml_load) -> Any:
    """Read YAML.

    Raises:
        yaml.YAMLError: The text is malformed, or larger than a config can be.
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
    """Count values and characters in lists, dicts and YAML nodes; what is shared counts each time.

    Args:
        content: What to count.
        known: Sizes by the id of the object, for the recursion.
    """
    known = {} if known is None else known
    content = content.value if isinstance(content, yaml.Node) else content
    if isinstance(content, str):
        return 1 + len(content)
    if not isinstance(content, dict | list | tuple | set):
        return 1
    if id(content) not in known:
        known[id(content)] = LARGEST + 1  # if it contains itself
        parts = (*content, *content.values()) if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(size(part, known) for part in parts)
    return known[id(content)]


def read(path: Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        UsageError: Names the file, and the line where it is malformed.
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
        kind = type(content).__name__
        raise UsageError(f"{path}: a config contains `option: value` lines; got {kind}")
    return content or {}


def find(name: str) -> Path:
    """Return the config of that name: an existing file, or one in `configs/`.

    Raises:
        UsageError: There is none.
    """
    for folder in (Path(), *_folders()):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"no config {name}, neither here nor in configs/; there are: {known()}")


def find_fragment(word: str) -> str:
    """Return a word of the command line; if its value names a fragment, with the path of it."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{_with_paths(value, (Path(), *_folders()))}"


def known() -> str:
    """Return the names of all configs."""
    return ", ".join(sorted({path.name for folder in _folders() for path in folder.glob("*.yaml")}))


def _with_paths(content: Any, folders: tuple[Path, ...]) -> Any:
    """Replace the names of fragments, such as block/lstm.yaml, by their paths."""
    if isinstance(content, dict):
        return {key: _with_paths(value, folders) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_paths(value, folders) for value in content]
    if isinstance(content, str) and content.endswith((".yaml", ".yml")):
        paths = (folder / content for folder in folders)
        return next((os.fspath(path) for path in paths if path.is_file()), content)
    return content


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as a file contains them: with lists for tuples, and without their source."""
    return _plain(settings)


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key != "__path__"}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def differences(before: object, now: object, place: str = "") -> dict[str, tuple[object, object]]:
    """Return the options that differ between two configs, with both values.

    Args:
        before: A config, or a value in it.
        now: The same of the other one.
        place: Option of these values, for the recursion.
    """
    before = _plain(before)
    now = _plain(now)
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
