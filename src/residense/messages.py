"""Messages on standard error, printed once however many processes there are."""

import json
import logging
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

PACKAGE = str(Path(__file__).parent)

# what JSON does not escape but a terminal obeys: DEL, C1, line separators, bidirectional controls
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def say(*lines: str) -> None:
    """Print lines to standard error, on the first process only."""
    from lightning.pytorch.utilities import rank_zero_only  # main.py must start quickly

    for line in lines if getattr(rank_zero_only, "rank", 0) == 0 else ():
        print(printable(line), file=sys.stderr, flush=True)


def program() -> str:
    """Return how to call the program from the working directory."""
    return "python main.py" if Path("main.py").is_file() else "residense"


def printable(text: str) -> str:
    """Escape what cannot be printed on one line of a terminal, such as ESC or a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def listed(names: Iterable[str], most: int = 10) -> str:
    """Join the first few names for a message, shortened and printable."""
    names = list(names)
    shown = [printable(name if len(name) <= 40 else f"{name[:37]}...") for name in names[:most]]
    return ", ".join([*shown, *["..."] * (len(names) > most)])


def to_json(value: object, indent: int | None = None) -> str:
    """Return a value as JSON that can be printed on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def quiet() -> None:
    """Suppress messages of the framework that nobody can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    own = filename.startswith(PACKAGE)
    say(f"{'warning' if own else f'{filename}:{lineno}: {category.__name__}'}: {message}")
