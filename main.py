"""python main.py fit|validate|test|predict: see README.md."""

import sys

from residense.cli import main

if __name__ == "__main__":
    sys.exit(main())
