"""Versions, devices, packages and the state of git, as a run records them."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import residense

LIBRARIES = ("torch", "lightning", "torchmetrics", "jsonargparse", "numpy", "wandb")
COMMANDS = ("rev-parse HEAD", "rev-parse --abbrev-ref HEAD", "status --short", "diff HEAD")


def packages() -> str:
    """Return Python, the platform and all installed packages, one on each line."""
    found = importlib.metadata.distributions()
    installed = sorted({f"{each.metadata['Name']}=={each.version}" for each in found})
    return "\n".join([f"# {_python()}", *installed, ""])


def describe() -> str:
    """Return what a bug report should contain: versions, devices, commit."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices += ["MPS"] * torch.backends.mps.is_available()
    state = git_state()
    if state.startswith("# "):
        commit, _, status, _ = (part.splitlines()[1:] for part in state.split("\n# "))
        state = f"{commit[0]}, {sum(map(bool, status))} changed files"
    lines = [
        f"residense {residense.__version__}",
        _python(),
        ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES),
        f"devices: {', '.join(devices) or 'no accelerator'}, {os.cpu_count()} CPUs",
        f"git: {state.strip()}",
    ]
    return "\n".join(lines)


def _python() -> str:
    return f"Python {platform.python_version()}, {platform.platform()}"


def git_state() -> str:
    """Return commit, branch and uncommitted changes, or a line that says why there are none."""
    try:
        return "\n".join(f"# git {command}\n{_git(command)}" for command in COMMANDS)
    except subprocess.CalledProcessError:
        return "not a git repository\n"
    except (OSError, subprocess.TimeoutExpired):
        return "git is not available\n"


def _git(command: str) -> str:
    options: dict[str, Any] = {"text": True, "errors": "replace", "timeout": 10, "check": True}
    words = ["git", *command.split()]
    folder = Path(__file__).parent
    return subprocess.run(words, cwd=folder, capture_output=True, **options).stdout
