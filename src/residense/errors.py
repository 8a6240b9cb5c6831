"""Errors that a user can act on."""


class UsageError(ValueError):
    """Something that was typed cannot be done; the message says what to type instead."""
