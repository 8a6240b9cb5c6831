"""The program: `residense`, `python -m residense` and `python main.py` are the same."""

import sys

from residense.run.preemption import stop_signals


def run() -> int:
    """Run the command line of this process, and return the exit code."""
    stop_signals.install()  # before the imports that take seconds, so that no signal is lost
    try:
        from residense.cli import main

        return main()
    except KeyboardInterrupt:  # before there was anything to save
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
