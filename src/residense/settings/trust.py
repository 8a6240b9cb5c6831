"""What the names in options, configs and checkpoints may import, and which of it may be called.

jsonargparse imports what a `class_path` names and calls it. Two checks come before that. `allow`
decides by name, before anything is imported: modules of this package, of an installed one, and of
the user's own files where these are trusted. `check` decides by what a name refers to, before
anything is called: a subclass of what its option is annotated with, or one of `FUNCTIONS`. All else
is refused.
"""

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from jsonargparse import set_parsing_settings
from torch import nn
from torch.nn import functional as F

from residense.errors import UsageError

FUNCTIONS = (
    *(torch.relu, torch.sigmoid, torch.tanh),
    *(F.relu, F.gelu, F.silu, F.elu, F.mish, F.softplus),
)
PACKAGES = (__name__.partition(".")[0], "torch", "lightning")  # imported before any settings
NEVER = sys.stdlib_module_names | {"__main__", "jsonargparse"}
DOTTED = re.compile(r"(?<![\w./-])[^\W\d]\w*(?:\.[^\W\d]\w*)+")
FILE = "__path__"  # key under which the parser stores the file that settings were read from

set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(PACKAGES))
set_parsing_settings(instantiate_subclass_spec_in_any=False)  # data that looks like a class


# -- by name ---------------------------------------------------------------------------------------


def origin(module: str) -> Literal["installed", "own", "missing", "never"]:
    """Return where a top-level module would be imported from, without importing it.

    Returns:
        `installed` for a package in site-packages and for this one; `own` for a file or folder
        elsewhere, such as the working directory; `missing` if there is none; `never` for the
        standard library, and for a file that hides an installed package of the same name.
    """
    if module in NEVER:
        return "never"
    if module in PACKAGES:
        return "installed"
    try:
        spec = find_spec(module)
    except ValueError:  # a module that was made by hand
        return "never"
    if spec is None:
        return "missing"
    places = list(spec.submodule_search_locations or ())
    if spec.has_location and spec.origin:
        places = [spec.origin]
    site = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    if places and all(_is_in(place, site) for place in places):
        return "installed"
    return "own" if PathFinder.find_spec(module, site) is None else "never"


def _is_in(place: str, folders: Iterable[str]) -> bool:
    """Return whether a file is in one of the folders; it may itself be a link to elsewhere."""
    parent = Path(place).parent.resolve()
    return any(parent.is_relative_to(Path(folder).resolve()) for folder in folders)


def own_file(module: str) -> Path | None:
    """Return the file of a top-level module, without importing it."""
    spec = find_spec(module) if module not in NEVER else None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def modules(settings: object) -> set[str]:
    """Return the top-level modules of all dotted names in settings."""
    return {name.partition(".")[0] for name in _names(settings)}


def own_modules(settings: object) -> set[str]:
    """Return the user's modules whose classes settings name."""
    named = {name.partition(".")[0] for name in _class_paths(settings)}
    return {module for module in named if origin(module) == "own"}


def kept_modules(copies: Path) -> set[str]:
    """Return the user's modules whose file still equals the copy that a run made of it."""
    kept = set()
    for copy in copies.glob("*.py"):
        file = own_file(copy.stem) if origin(copy.stem) == "own" else None
        # the file of a package has another name
        if file is not None and file.name == copy.name and file.read_bytes() == copy.read_bytes():
            kept.add(copy.stem)
    return kept


def _names(settings: object) -> Iterator[str]:
    for value in _walk(settings):
        if isinstance(value, str):
            yield from DOTTED.findall(value)


def _class_paths(settings: object) -> Iterator[str]:
    for value in _walk(settings):
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            yield value["class_path"]


def _walk(settings: object) -> Iterator[Any]:
    """Yield all values in nested dicts and lists, and these themselves."""
    yield settings
    if isinstance(settings, dict | list | tuple):
        for part in settings.values() if isinstance(settings, dict) else settings:
            yield from _walk(part)


def allow(settings: object, trusted: Collection[str] | None = None) -> None:
    """Allow to import the trusted modules that settings name, and no others.

    Args:
        settings: Words of a command line, or the content of a config or checkpoint.
        trusted: The user's modules that are trusted; null for all that the settings name, if the
            settings are the user's.
    """
    allowed, denied = [], []
    for module in modules(settings):
        kind = origin(module)
        own = kind == "own" and (trusted is None or module in trusted)
        (allowed if own or kind in ("installed", "missing") else denied).append(module)
    scripts = (name.partition(".__main__")[0] for name in _names(settings) if ".__main__" in name)
    denied += [f"{package}.__main__" for package in scripts]  # a program that an import would run
    set_parsing_settings(import_path_denylist=denied, import_path_allowlist=allowed)


def refuse_untrusted(settings: object, source: str, trusted: Collection[str], copies: Path) -> None:
    """Refuse settings of a checkpoint that name a class in a file that is untrusted or missing.

    Args:
        settings: Settings of the checkpoint.
        source: Its name.
        trusted: The user's modules that are trusted.
        copies: Folder in which its run keeps copies of the user's files.

    Raises:
        UsageError: Names the class, the file and how to trust it, or where there is a copy.
    """
    for name in _class_paths(settings):
        module = name.partition(".")[0]
        copy = copies / f"{module}.py"
        if origin(module) == "missing" and copy.is_file():
            raise UsageError(f"{source} needs {name}, whose file is not here: copy {copy}")
        if module not in trusted and origin(module) == "own":
            place = own_file(module) or f"the folder {module}"
            fix = f"if you trust that file, add --trust {module} (in Python, trust=[{module!r}])"
            raise UsageError(f"{source} needs {name} from {place}: {fix}")


# -- by what a name refers to ----------------------------------------------------------------------


def check(settings: object, hint: object, option: str, default: object = None) -> None:
    """Check that parsed settings name only classes of the kind that the option asks for.

    Args:
        settings: A class_path with its init_args, or any other value; lists and dicts of them.
        hint: Annotation of the option.
        option: Name of the option.
        default: Default of the option, which may be any function.

    Raises:
        UsageError: Names the option and its value.
    """
    if isinstance(settings, dict) and "class_path" in settings:
        cls = _class(settings["class_path"], hint, option)
        check_arguments(cls, settings.get("init_args") or {}, option)
    elif isinstance(settings, dict):
        check([value for key, value in settings.items() if key != FILE], hint, option, default)
    elif isinstance(settings, list | tuple):
        for value in settings:
            check(value, hint, option, default)
    elif callable(settings) and not any(settings is known for known in (default, *FUNCTIONS)):
        given = getattr(settings, "__name__", settings)
        known = ", ".join(sorted({function.__name__ for function in FUNCTIONS}))
        raise UsageError(f"{option}: {given} is not accepted, only classes and {known}")


def check_arguments(cls: type, arguments: dict[str, Any], option: str) -> None:
    """Check the arguments of a class; refuse null where the annotation excludes it.

    Raises:
        UsageError: Names the option and its value.
    """
    hints = _hints(cls)
    parameters = inspect.signature(cls).parameters
    for name, value in arguments.items():
        if name == FILE:
            continue
        hint = hints.get(name, nn.Module | None)
        default = getattr(parameters.get(name), "default", None)
        excludes_null = hint is not Any and type(None) not in get_args(hint)
        if value is None and default is not None and excludes_null:
            raise UsageError(
                f"{option}.{name}: null is not a value for it; leave it out for the default"
            )
        check(value, hint, f"{option}.{name}", default)


def _class(name: str, hint: object, option: str) -> type:
    """Return the class of that name, which jsonargparse has imported if it can be used."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    bases = _bases(hint)
    if inspect.isclass(found) and issubclass(found, bases):
        return found
    if not bases:
        raise UsageError(f"{option}: no class is accepted, got {name}")
    wanted = " or ".join(dict.fromkeys(base.__name__ for base in bases))
    raise UsageError(f"{option}: {name} is not a {wanted}")


def _bases(hint: object) -> tuple[type, ...]:
    """Return the classes that an annotation asks for, or that a factory of it has to return."""
    kind = get_origin(hint) or hint
    parts = get_args(hint)
    if getattr(kind, "__module__", "") in ("builtins", "collections.abc", "types", "typing"):
        parts = parts[-1:] if kind is Callable else parts
        return tuple(base for part in parts for base in _bases(part))
    return (kind,) if inspect.isclass(kind) and not getattr(kind, "_is_protocol", False) else ()


def _hints(cls: type) -> dict[str, Any]:
    """Return the annotations of the arguments of a class and its bases."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        init = inspect.unwrap(vars(base).get("__init__", object.__init__))
        for name, annotation in getattr(init, "__annotations__", {}).items():
            one = SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= get_type_hints(one, init.__globals__)
            except NameError:  # imported for type checkers only
                hints[name] = nn.Module | None
    return hints
