"""What `fit` would do with some options, without doing it: for scripts that compare runs."""

import io
import os
import sys
from contextlib import redirect_stderr
from typing import Any

from residense.cli import CLI
from residense.messages import quiet


class Plan(CLI):
    """The command `fit`, up to where it would write anything.

    Args:
        options: words behind `fit`.
    """

    def __init__(self, options: list[str]):
        quiet()
        sys.path.append(os.getcwd())
        with redirect_stderr(io.StringIO()):  # the run itself prints it
            super().__init__(["fit", *options])

    def _refuse_loss(self, options: Any) -> None:
        """Allow everything."""

    def instantiate_classes(self) -> None:
        """Make the model and the data module, but no trainer."""
        parts = self.parser.instantiate_classes(self.config)["fit"]
        self.model = parts["model"]
        self.datamodule = parts["data"]

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""

    def fingerprint(self) -> dict[str, str] | None:
        """Return the fingerprint of the data; None for a data module without one."""
        with redirect_stderr(io.StringIO()):
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
        return getattr(self.datamodule, "fingerprint", None)
