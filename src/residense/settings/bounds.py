"""Types of options for numbers with bounds, which the parser checks before anything is made.

Their values are plain `int` and `float`, also in checkpoints.
"""

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import register_type


def _bounded(name: str, base: type, low: float, high: float, said: str) -> Any:
    """Return a type whose values are those of `base` between two bounds."""

    def check(value: Any, _: Any = None) -> bool:
        return type(value) in (int, base) and low <= value <= high

    def parse(value: Any) -> Any:
        with suppress(ValueError):
            number = base(value) if isinstance(value, str) else value
            if check(number):
                return number
        raise ValueError(f"expected {said}, got {value}")

    kind = type(name, (base,), {"__doc__": f"{said[0].upper()}{said[1:]}."})
    register_type(kind, serializer=lambda value: value, deserializer=parse, type_check=check)
    return kind


if TYPE_CHECKING:
    Positive = int
    Count = int
    Share = float
else:
    Positive = _bounded("Positive", int, 1, inf, "a whole number, at least 1")
    Count = _bounded("Count", int, 0, inf, "a whole number, at least 0")
    Share = _bounded("Share", float, 0, 1, "a number from 0 to 1")
