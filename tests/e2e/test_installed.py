"""The installed package brings its configs and its command, and needs no clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_trains_from_any_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        (entry_points,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "residense = residense.__main__:run" in archive.read(entry_points).decode()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    fit = ["fit", "--config=dense_ner.yaml", "--config=debug/fast.yaml", "--run_dir=run"]
    small = ["--data.synthetic.size=300", "--logger=none"]
    done = subprocess.run(
        [sys.executable, "-m", "residense", *fit, *small],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "checkpoints" / "best.ckpt").exists()
    where = "import residense; print(residense.__file__)"
    module = subprocess.run(
        [sys.executable, "-c", where],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert module.stdout.startswith(str(tmp_path / "installed"))
