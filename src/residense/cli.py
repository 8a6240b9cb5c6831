"""The command line: its first word chooses a command."""

import signal
import sys
from collections.abc import Callable, Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException

from residense.data.module import TextDataModule
from residense.errors import UsageError, one_line
from residense.evaluate import predict, test, validate
from residense.export import export
from residense.messages import printable, program, quiet
from residense.run.environment import describe
from residense.tasks.base import Task
from residense.train import fit

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "fit": fit,
    "validate": validate,
    "test": test,
    "predict": predict,
    "export": export,
}
HELP = ("-h", "--help")


def overview() -> str:
    """Return the help on the program: its commands, tasks and data modules."""
    lines = [
        f"usage: {program()} COMMAND [OPTION ...]",
        "",
        "Train, evaluate and use NLP encoders with interchangeable connections.",
        "",
        "commands:",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<10} {_first_line(command)}")
    for title, base in (("tasks", Task), ("data modules", TextDataModule)):
        lines += ["", f"{title}:"]
        lines += [f"  {cls.__name__:<26} {_first_line(cls)}" for cls in _subclasses(base)]
    lines += [
        "",
        "COMMAND --help lists the options of a command, and fit --model.help Tagger those of a class.",
        "--version prints versions, devices and the state of git, for bug reports.",
    ]
    return "\n".join(lines)


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


def _subclasses(base: type) -> list[type]:
    found = []
    for cls in base.__subclasses__():
        found += [cls, *_subclasses(cls)]
    return found


def run(words: Sequence[str]) -> None:
    """Run a command.

    Raises:
        UsageError: There is no such command.
    """
    if words[:1] == ["--version"]:
        print(describe())
    elif not words or words[0] in HELP:
        print(overview())
    elif words[0] not in COMMANDS:
        raise UsageError(f"the first word is one of {', '.join(COMMANDS)}; got {words[0]}")
    else:
        COMMANDS[words[0]](words[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and return the exit code."""
    quiet()
    try:
        run(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # Lightning exits with 1
            raise SystemExit(128 + signal.SIGINT) from None
        raise
    except (ValueError, OSError, MisconfigurationException) as error:
        message = one_line(error)
        if message is None:
            raise
        print("\n".join(map(printable, f"error: {message}".split("\n"))), file=sys.stderr)
        return 2
    return 0
