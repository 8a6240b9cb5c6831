"""python main.py fit|validate|test|predict: see README.md."""

import sys

from residense.__main__ import run

if __name__ == "__main__":
    sys.exit(run())
