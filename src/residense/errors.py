"""Errors that a user can act on: they are shown in one line, all others with their traceback."""


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
    if isinstance(error, ValueError) and not isinstance(error, ResidenseError):
        return None
    return str(error)
