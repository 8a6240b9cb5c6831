"""What stays on a terminal: each epoch's line, once and in order, and nothing of the bar."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
import pytest

MAIN = Path(__file__).parents[2] / "main.py"
ROWS = 12  # fewer than there are lines, so that the first ones scroll off
OPTIONS = [
    "fit",
    "--config=dense_ner.yaml",
    "--logger=none",
    "--data.synthetic.size=600",
    "--data.batch_tokens=128",
    "--model.encoder.depth=2",
    "--trainer.max_epochs=5",
]
LINE = re.compile(r"epoch (\d)/5  train/loss \d\.\d{4}  val/f1 0\.\d{4}  tokens/s [\d,]+")


def shown(command: list[str], columns: int, folder: Path) -> tuple[list[str], pyte.HistoryScreen]:
    """The lines of a terminal, with those scrolled off, once a command that runs in it has ended."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    child = subprocess.Popen(
        command,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"},
    )
    os.close(inner)
    screen = pyte.HistoryScreen(columns, ROWS, history=10_000)
    stream = pyte.ByteStream(screen)
    while written := read(outer):
        stream.feed(written)
    os.close(outer)
    assert child.wait() == 0, screen.display
    scrolled = ["".join(row[i].data for i in range(columns)) for row in screen.history.top]
    return [line.rstrip() for line in [*scrolled, *screen.display]], screen


def read(terminal: int) -> bytes:
    """What was written there; nothing once the other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120, 200])
def test_each_epoch_leaves_its_line_and_no_bar_stays(columns: int, tmp_path: Path) -> None:
    lines, screen = shown([sys.executable, str(MAIN), *OPTIONS], columns, tmp_path)
    epochs = [line for line in lines if "epoch " in line.lower() and "best" not in line]
    found = [LINE.fullmatch(line) for line in epochs]
    assert [match and match[1] for match in found] == list("12345"), "\n".join(lines)
    assert not re.search(r"\d%\||\d\d:\d\d<|it/s", "\n".join(lines))
    assert not screen.cursor.hidden
