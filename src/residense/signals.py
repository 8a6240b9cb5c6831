"""Signals that ask a run to stop. While it trains they only set a flag, which it looks at between two steps.

Nothing heavy is imported here: `main.py` installs the handlers before anything else.
"""

import os
import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """The flag, and who looks at it.

    Attributes:
        received: the signal that came, if one did.
        deferred: whether someone looks at the flag: if not, a signal ends the process at once. A SIGUSR1 always waits,
            as schedulers send it long before the end.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self._installed = False

    def install(self) -> None:
        """Handle the signals; again once a library has put its own handlers over these.

        A job script may have started Python with the signals blocked, so that none is lost before this.
        """
        for number in STOPPING:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        if not self._installed:
            os.register_at_fork(
                after_in_child=_default_handlers
            )  # workers of a data loader end when they are told to
        self._installed = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        insisted = number == signal.SIGINT and self.received == signal.SIGINT
        waits = self.deferred or number == signal.SIGUSR1
        if self.received is None or number == signal.SIGINT:
            self.received = number
        if number == signal.SIGINT and (insisted or not waits):
            raise KeyboardInterrupt
        if not waits:
            raise SystemExit(128 + number)


def _default_handlers() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)


stop_signals = StopSignals()


class Stopped(SystemExit):
    """A run that has saved all it is and ends, with the exit code of the signal that asked for it."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


def signal_name(number: int) -> str:
    """SIGTERM and the like."""
    return signal.Signals(number).name
