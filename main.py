"""python main.py fit|validate|test|predict: see README.md."""

import sys

from residense.preemption import stop_signals

if __name__ == "__main__":
    stop_signals.install()  # before the imports that take seconds, so that no signal is lost

    try:
        from residense.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before there was anything to save
        print("interrupted", file=sys.stderr)
        sys.exit(130)
