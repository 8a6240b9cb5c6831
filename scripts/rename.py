"""Rename the project: package, imports, configs, documentation and environment variables.

    python scripts/rename.py my_project

Run it from any directory, on a clean or modified tree, as often as needed. It prints what it
changed. The license keeps its copyright notice, as it requires. Then run:
pip install -e '.[dev]' && pytest
"""

import keyword
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ("LICENSE",)
CODE = {".py", ".pyi", ".yaml", ".toml", ".slurm"}
PASSED = {
    ".git",
    ".venv",
    "venv",
    "runs",
    "wandb",
    "build",
    "dist",
    "__pycache__",
}  # folders to skip without git


def forms(name: str) -> tuple[str, str, str]:
    """Return a name as used in code, in environment variables and in prose."""
    return name, name.upper(), name.replace("_", " ").title()


def files(root: Path) -> Iterator[Path]:
    """Yield the text files of the project: those known to git or not ignored, or else all files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
    )
    if listed.returncode == 0:
        found = [root / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    else:
        found = [path for path in root.rglob("*") if not PASSED & set(path.relative_to(root).parts)]
    for path in sorted(set(found)):
        if (
            path.is_file()
            and not path.is_symlink()
            and path.name not in KEPT
            and b"\0" not in path.read_bytes()
        ):
            yield path


def renamed(text: str, old: str, new: str) -> str:
    """Replace each form of the old name where it is a word or part of an identifier."""
    for before, after in zip(forms(old), forms(new), strict=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){before}(?![A-Za-z0-9])", after, text)
    old_class, new_class = (name.title().replace("_", "") for name in (old, new))
    return re.sub(rf"(?<![A-Za-z0-9]){old_class}(?=[A-Z])", new_class, text)  # names of classes


def package(root: Path) -> str:
    """Return the current name of the project."""
    found = sorted(path.parent.name for path in (root / "src").glob("*/__init__.py"))
    if len(found) != 1:
        sys.exit(f"error: {root / 'src'}: expected one package, found {', '.join(found) or 'none'}")
    return found[0]


def check(root: Path, old: str, new: str) -> None:
    """Reject invalid package names, and names that could not be told apart from other words."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", new) or keyword.iskeyword(new) or "__" in new:
        sys.exit(
            f"error: {new!r} is not a valid name: use lowercase letters, digits and single underscores"
        )
    if new in sys.stdlib_module_names:
        sys.exit(f"error: {new} is a module of the standard library: choose another name")
    word = re.compile("|".join(rf"(?<![A-Za-z0-9]){form}(?![A-Za-z0-9])" for form in forms(new)))
    for path in files(root):
        place = path.relative_to(root)
        if path.suffix not in CODE or place.parts[0] == "tests" or path.name == Path(__file__).name:
            continue
        for number, line in enumerate(renamed(_read(path), old, "").splitlines(), 1):
            if word.search(line):
                sys.exit(f"error: {place}:{number} already contains {new!r}: choose another name")


def rename(root: Path, new: str) -> list[str]:
    """Rename the project; return one line for each change."""
    old = package(root)
    if new == old:
        return []
    check(root, old, new)
    contents = {path: (_read(path), renamed(_read(path), old, new)) for path in files(root)}
    said = []
    for path, (before, after) in contents.items():
        changed = sum(a != b for a, b in zip(before.splitlines(), after.splitlines(), strict=True))
        if changed:
            path.write_bytes(after.encode("utf-8", "surrogateescape"))
            said.append(f"{path.relative_to(root)}: {changed} line{'s' * (changed > 1)}")
    os.rename(root / "src" / old, root / "src" / new)
    return [*said, f"src/{old}/ is now src/{new}/"]


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def main() -> None:
    """Parse the command line, rename the project and print the changes."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    old, new = package(ROOT), sys.argv[1]
    said = rename(ROOT, new)
    print("\n".join(said) if said else f"the project is already called {new}: nothing to do")
    if said:
        print(f"next: pip uninstall -y {old}; pip install -e '.[dev]' && pytest")


if __name__ == "__main__":
    main()
