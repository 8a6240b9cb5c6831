"""Errors that a user can act on: they are shown in one line, all others with their traceback."""

import dis

# these may be used without the rest of the package, and raise plain ValueErrors
SEPARATE = ("residense.nn.", "residense.data.", "residense.tags")


class ResidenseError(ValueError):
    """Base of the errors that a user can act on; the message says how."""


class UsageError(ResidenseError):
    """An option, file or directory that cannot be used as given."""


class TrainingError(ResidenseError):
    """Training that cannot go on."""


def one_line(error: Exception) -> str | None:
    """Return what to show of an error instead of its traceback, which is needed if this is None."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if not isinstance(error, ValueError) or isinstance(error, ResidenseError):
        return str(error)
    return str(error) if _is_check(error) else None


def _is_check(error: ValueError) -> bool:
    """Return whether a `raise` statement of a separate part raised it, not a mistake in code."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    if tb is None or not tb.tb_frame.f_globals["__name__"].startswith(SEPARATE):
        return False
    return tb.tb_frame.f_code.co_code[tb.tb_lasti] == dis.opmap["RAISE_VARARGS"]
