"""A run that is stopped or killed is one run in W&B, which holds all that metrics.csv holds."""

import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from lightning.pytorch.utilities import rank_zero_only

from residense.cli import main
from residense.data.batches import BatchLoader
from residense.loggers import Continued
from residense.signals import stop_signals
from residense.wandb_segments import BLOCK, records, rows

from .runs import OPTIONS as SMALL

OPTIONS = [*SMALL, "--logger=wandb"]
ROOT = Path(__file__).parents[1]
STEP = "trainer/global_step"


def stop(batch: int, number: int, options: list[str]) -> None:
    """Train, and get a signal when the `batch`-th batch of the training split is handed out."""
    share, count = BatchLoader._share, [0]

    def counting(self: BatchLoader, *given: Any) -> Any:
        count[0] += self.shuffle
        if self.shuffle and count[0] == batch:
            os.kill(os.getpid(), number)
        return share(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchLoader, "_share", counting)
        with pytest.raises(SystemExit) as stopped:
            main(options)
    assert stopped.value.code == 128 + number
    stop_signals.received = None


@pytest.fixture(scope="module")
def terminated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was stopped in its third epoch, after 7 of 9 steps."""
    run = tmp_path_factory.mktemp("terminated") / "run"
    stop(15, signal.SIGTERM, [*OPTIONS, f"--run_dir={run}"])
    return run


@pytest.fixture
def run(terminated: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(terminated, tmp_path / "run", symlinks=True))


def resume(run: Path) -> None:
    assert main([*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"]) == 0


# -- what is there -----------------------------------------------------------------------------------------------------


def segments(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/*run-*/*.wandb"))


def read(segment: Path) -> tuple[set[str], list[dict[str, Any]]]:
    """Ids of runs, and what each call of `log` was given."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    found = [Record.FromString(record) for record in records(segment.read_bytes())]
    names = {record.run.run_id for record in found if record.HasField("run")}
    items = [record.history.item for record in found if record.HasField("history")]
    logged = [
        {"/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in items
    ]
    return names, [
        {name: value for name, value in row.items() if not name.startswith("_")} for row in logged
    ]


def history(run: Path) -> Counter[tuple[int, str, float]]:
    with (run / "metrics.csv").open(newline="") as stream:
        found = [(int(row.pop("step")), row) for row in csv.DictReader(stream)]
    return Counter(
        (step, name, float(value)) for step, row in found for name, value in row.items() if value
    )


def assert_one_run(run: Path) -> None:
    """W&B holds what metrics.csv holds, with its step; what it holds twice has one value, but for speed."""
    parts = [read(segment) for segment in segments(run)]
    assert set.union(*(names for names, _ in parts)) == {(run / "wandb_id.txt").read_text().strip()}
    rows = [(row.pop(STEP), row) for _, found in parts for row in found]
    logged = {(step, name, float(value)) for step, row in rows for name, value in row.items()}
    expected = history(run)
    assert logged >= expected.keys()
    assert {name for _, name, _ in logged - expected.keys()} <= {"train/tokens_per_s"}
    assert [step for step, name, _ in sorted(expected) if name == "train/loss"] == list(range(9))
    assert [step for step, name, _ in sorted(expected) if name == "train/tokens_per_s"] == [2, 5, 8]


# -- a run that goes on ------------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_twice_is_one_run(run: Path) -> None:
    stop(1, signal.SIGTERM, [*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"])
    resume(run)
    assert len(segments(run)) == 3
    assert_one_run(run)


def lose(run: Path, step: int) -> None:
    """Leave what W&B had written when it was killed within a row of this step."""
    (segment,) = segments(run)
    while any(row.step >= step for row in rows(segment)):
        os.truncate(segment, segment.stat().st_size - 40)


@pytest.mark.parametrize("step", [0, pytest.param(6, marks=pytest.mark.slow)])
def test_what_a_kill_took_is_logged_again(run: Path, step: int) -> None:
    lose(run, step)
    with (run / "metrics.csv").open("a") as stream:
        stream.write("0,1")  # the beginning of a row
    resume(run)
    assert_one_run(run)


@pytest.mark.slow
def test_what_was_logged_again_is_not_logged_once_more(run: Path) -> None:
    lose(run, 4)
    stop(1, signal.SIGTERM, [*OPTIONS, f"--run_dir={run}", "--ckpt_path=last"])
    resume(run)
    assert_one_run(run)


@pytest.mark.slow
def test_a_run_without_wandb_can_go_on_with_it(run: Path) -> None:
    shutil.rmtree(run / "wandb")
    (run / "wandb_id.txt").unlink()
    resume(run)
    assert_one_run(run)


@pytest.mark.slow
def test_a_killed_run_is_one_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        *OPTIONS,
        f"--run_dir={run}",
        "--save_every_n_steps=2",
    ]
    surroundings = {
        name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
    }  # that of other tests
    training = subprocess.Popen(
        command, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    history = run / "metrics.csv"
    while not history.is_file() or len(history.read_text().splitlines()) < 5:
        assert training.poll() is None
        time.sleep(0.01)
    training.kill()
    training.wait()
    time.sleep(
        2
    )  # W&B's own process looks whether its parent is alive, and may write before it ends
    resume(run)
    assert_one_run(run)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_logs(run: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, float]] = []
    monkeypatch.setattr("wandb.init", lambda **options: SimpleNamespace(log=logged.append))
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    (run / "metrics.csv").write_text("lost,step\n0.5,1\n0.5,1\n0.25,2\n")
    logger = Continued(
        run, resumed_at=2, offline=True, id=(run / "wandb_id.txt").read_text().strip()
    )
    logger.log_metrics({"new": 1.0}, 2)
    logger.experiment.log({"newer": 1.0})
    first = [{"lost": 0.5, STEP: 1}, {"new": 1.0, STEP: 2}, {"newer": 1.0}]
    assert logged == (first if rank == 0 else [])


# -- files -------------------------------------------------------------------------------------------------------------


def written(contents: list[bytes]) -> bytes:
    """Records as LevelDB logs lay them out."""
    data = b":W&B\xe1\xbe\x00"
    for content in contents:
        begun, done = False, False
        while not done:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                continue
            piece, content = content[: left - 7], content[left - 7 :]
            done = not content
            body = bytes([{(0, 1): 1, (0, 0): 2, (1, 0): 3, (1, 1): 4}[begun, done]]) + piece
            data += struct.pack("<IH", zlib.crc32(body), len(piece)) + body
            begun = True
    return data


@pytest.mark.parametrize("left", range(16))  # bytes of the first block, behind its first record
def test_records_are_read_up_to_the_end_or_damage(left: int) -> None:
    contents = [
        bytes([7]) * (BLOCK - 14 - left),
        b"short",
        random.Random(left).randbytes(3 * BLOCK),
        b"",
        b"last",
    ]
    data, ends = written(contents), [len(written(contents[:i])) for i in range(1, 6)]
    assert list(records(data)) == contents
    for length in (*range(0, len(data), 997), *(end - 1 for end in ends), *ends):
        expected = contents[: sum(end <= length for end in ends)]
        assert list(records(data[:length])) == expected
        assert list(records(data[:length] + bytes(100))) == expected  # a disk that lost its power
    damaged = bytearray(data)
    damaged[2 * BLOCK] ^= 1
    assert list(records(bytes(damaged))) == contents[:2]


def test_a_segment_cut_anywhere_gives_the_rows_before(run: Path) -> None:
    (segment,) = segments(run)
    data, whole = segment.read_bytes(), list(rows(segment))
    assert [row.step for row in whole] == sorted(row.step for row in whole) and len(whole) > 10
    for length in range(0, len(data), 331):
        segment.write_bytes(data[:length])
        found = list(rows(segment))
        assert found == whole[: len(found)]


def test_the_whole_config_is_logged_once(run: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    (segment,) = segments(run)
    found = [Record.FromString(record) for record in records(segment.read_bytes())]
    items = [
        item for record in found for item in (*record.run.config.update, *record.config.update)
    ]
    logged = {item.key: json.loads(item.value_json) for item in items}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert {name: logged[name] for name in config} == config
    assert logged.keys() - config.keys() == {
        "_wandb",
        "config",
        "git",
        "parameters",
    }  # nothing by a second name


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True])
def test_without_a_network_a_run_is_logged_offline(
    answers: bool,
    silent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent if answers else "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")  # taken back at the end
    wandb.teardown()  # it has read the variables of other tests
    run = tmp_path / "run"
    assert main([*OPTIONS, f"--run_dir={run}", "--trainer.max_epochs=1"]) == 0
    (said,) = (line for line in capfd.readouterr().err.splitlines() if "W&B" in line)
    assert re.match(
        r"W&B is offline \(.*(refused|deadline exceeded)\); `wandb sync \S+` uploads", said
    )
    (segment,) = run.glob("wandb/offline-run-*/*.wandb")
    assert sum("train/loss" in row.values for row in rows(segment)) == 3


def train(run: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own with these variables."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        *OPTIONS,
        f"--run_dir={run}",
        "--test_after_fit=true",
    ]
    return subprocess.run(command, env=others | variables, capture_output=True, text=True)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = train(tmp_path / "run", HOME=str(tmp_path / "home"), MPLCONFIGDIR=str(tmp_path))
    assert done.returncode == 0 and " INFO " not in done.stderr, done.stderr
    assert list((tmp_path / "run").glob("wandb/offline-run-*/files/media/table/test/*.json"))


def test_that_wandb_is_missing_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*OPTIONS, f"--run_dir={tmp_path}/run"]) == 2
    assert (
        capfd.readouterr().err
        == "error: W&B is missing: pip install wandb, or leave it out with --logger csv\n"
    )


@pytest.mark.slow
def test_a_key_that_is_none_is_said_in_a_line(tmp_path: Path) -> None:
    done = train(tmp_path / "run", WANDB_API_KEY="abc")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(errors) == 1 and "error: W&B: " in errors[0] and "WANDB_MODE=offline" in errors[0]
