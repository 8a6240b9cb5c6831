"""Every command of the README and its pages runs as printed, on less data; both READMEs agree."""

import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README, CHINESE = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
PAGES = README + "".join(
    (ROOT / "docs" / name).read_text() for name in ("usage.md", "extending.md")
)
PARTS = ("README.md", "main.py", "pyproject.toml", "configs", "scripts", "src")
ELSEWHERE = {  # commands that are only written down here, and where they run
    "pip": ".ci/run",
    "pytest": ".ci/run",
    "sbatch": "tests/e2e/slurm",
    "wandb": "tests/e2e/test_sweeps.py, but for what needs an account",
}
FEWER = (
    "--trainer.limit_train_batches=2 --trainer.limit_val_batches=1 --trainer.limit_test_batches=1"
)
FEW = f"{FEWER} --trainer.max_epochs=1 --data.batch_tokens=256 --data.synthetic.size=300"
PYTHON = f"""#!/bin/sh
case "$*" in
*--ckpt_path?last*) exec {sys.executable} "$@" {FEWER} ;;
"main.py fit "* | *" runs/wiring") exec {sys.executable} "$@" {FEW} ;;
*) exec {sys.executable} "$@" ;;
esac
"""


def blocks(text: str, language: str) -> list[str]:
    """What stands between fences."""
    return [
        content
        for name, content in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
        if name == language
    ]


COMMANDS = blocks(PAGES, "bash")


def program(path: Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def clone(tmp_path: Path, trained: Path) -> Path:
    """The project and what the README assumes: a run, a corpus, texts, vectors, its examples."""
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    shutil.copytree(trained, tmp_path / "runs" / "dense_ner" / "before")
    (tmp_path / "my_corpus").mkdir()
    (tmp_path / "slash_corpus").mkdir()
    sentence = "Anna\tB-PER\nSmith\tI-PER\nlives\tO\nin\tO\nParis\tB-LOC\n\n"
    slashes = "Anna/B-PER Smith/I-PER lives/O in/O Paris/B-LOC\n"
    for split in ("train", "dev", "test"):
        (tmp_path / "my_corpus" / f"{split}.conll").write_text(sentence * 30)
        (tmp_path / "slash_corpus" / f"{split}.txt").write_text(slashes * 30)
    (tmp_path / "my_texts.csv").write_text(
        "text,label\n" + "good service,praise\nmy parcel is lost,complaint\n" * 40
    )
    (tmp_path / "texts.txt").write_text("Anna Smith lives in Paris.\nNobody does.\n")
    vectors = "".join(f"{word} {' '.join(['0.5'] * 8)}\n" for word in ("anna", "paris", "lives"))
    (tmp_path / "glove.6B.50d.txt.gz").write_bytes(gzip.compress(vectors.encode()))
    for example in blocks(PAGES, "python"):
        (tmp_path / example.split()[1]).write_text(example)
    sweep = tmp_path / "configs" / "sweeps" / "wiring.yaml"
    content = yaml.safe_load(sweep.read_text())
    content["parameters"] = {
        name: {"values": p["values"][:1]} for name, p in content["parameters"].items()
    }
    sweep.write_text(yaml.safe_dump(content))
    program(tmp_path / "bin" / "python", PYTHON)
    for name in ELSEWHERE:
        program(
            tmp_path / "bin" / name, f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/elsewhere.txt\n'
        )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.split("\n")[0][:60])
def test_the_commands_run(block: str, clone: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{clone}/bin:{os.environ['PATH']}",
        "WANDB_MODE": "offline",
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "error:" not in done.stderr
    elsewhere = clone / "elsewhere.txt"
    written = elsewhere.read_text().split("\n") if elsewhere.exists() else []
    for name in ELSEWHERE:
        assert (name in {line.partition(" ")[0] for line in written}) == bool(
            re.search(rf"^{name} |&& {name}\b", block, re.M)
        )


def test_what_the_recipes_are_about_is_all_there() -> None:
    subjects = (
        "my_corpus",
        "my_texts.csv",
        "my_connections",
        "my_blocks",
        "glove",
        "test --ckpt_path",
        "predict",
        "wandb",
    )
    subjects += (
        "--ckpt_path last",
        "--init_from",
        "--logger csv",
        "sbatch",
        "trainer/ddp",
        "debug/fast",
        "debug/overfit",
    )
    subjects += ("debug/profile", "rename.py")
    assert [
        subject for subject in subjects if not any(subject in block for block in COMMANDS)
    ] == []


def test_every_file_that_the_documentation_links_to_is_there() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        links = re.findall(r"\]\(([^):]+)\)", text)
        broken = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
        assert not broken, f"{page.name} links to {broken}"


def test_the_chinese_readme_says_the_same() -> None:
    for language in ("bash", "python", ""):
        assert blocks(CHINESE, language) == blocks(README, language)
    for pattern in (
        r"^#+ ",
        r"^\*\*",
        r"^\|",
        r"\d[\d.,]* ± [\d.]+",
        r"\]\([^)#]+\)",
        r"`--[\w.]+",
        r"`\w+\.yaml`",
    ):
        assert len(re.findall(pattern, CHINESE, re.M)) == len(re.findall(pattern, README, re.M)), (
            pattern
        )
    numbers = r"\d+\.\d+"
    assert sorted(re.findall(numbers, CHINESE)) == sorted(re.findall(numbers, README))
