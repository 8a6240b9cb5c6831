"""What a run says besides its results: to standard error, once however many processes there are."""

import sys

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say(*lines: str) -> None:
    """Print lines to standard error, on the first process only."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
