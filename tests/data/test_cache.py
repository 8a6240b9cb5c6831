"""The cache: right arrays whatever has happened to the files, and never a part of one."""

import hashlib
import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from residense.atomic import write_atomically
from residense.data.cache import Values, cached, fingerprint, folder

ARRAYS: Values = {
    "tokens": np.arange(6, dtype=np.int32),
    "train/matrix": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
    "nothing": np.zeros((0, 4)),
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDENSE_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def build() -> Values:
    return {name: array.copy() for name, array in ARRAYS.items()}


def never() -> Values:
    raise AssertionError("what is stored must not be built again")


def assert_right(found: Values) -> None:
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_was_built_is_stored_and_not_built_again(store: Path) -> None:
    assert_right(cached("key", build))
    assert [path.name for path in store.iterdir()] == ["key.npz"]
    assert_right(cached("key", never))
    assert cached("other", lambda: {"a": np.ones(1)}).keys() == {"a"}


def test_stored_arrays_can_be_changed_without_changing_the_file() -> None:
    cached("key", build)
    cached("key", never)["tokens"][:] = 99
    assert_right(cached("key", never))


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    return buffer.getvalue()


def other_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{}], dtype=object))
    return buffer.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "text": lambda good: b"not an archive\n",
    "pickle": lambda good: b"\x80\x04N.",
    "half": lambda good: good[: len(good) // 2],
    "without its end": lambda good: good[:-1],
    "without its start": lambda good: good[10:],
    "zeros": lambda good: bytes(len(good)),
    "zeros inside": lambda good: good[:150] + bytes(40) + good[190:],
    "one array": lambda good: npy(),
    "objects": lambda good: other_archive(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_built_again_and_replaced(store: Path, damage: str) -> None:
    cached("key", build)
    path = store / "key.npz"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert_right(cached("key", build))
    assert_right(cached("key", never))
    assert [path.name for path in store.iterdir()] == ["key.npz"]


def test_a_file_cut_at_any_byte_is_built_again(store: Path) -> None:
    cached("key", build)
    path = store / "key.npz"
    good = path.read_bytes()
    for length in range(0, len(good), 11):
        path.write_bytes(good[:length])
        assert_right(cached("key", build))


@pytest.mark.parametrize("bit", [0, 5])
def test_a_flipped_bit_is_an_error_for_nobody(store: Path, bit: int) -> None:
    cached("key", build)
    path = store / "key.npz"
    good = path.read_bytes()
    end = good.rindex(
        b"PK\x05\x06"
    )  # the lengths behind it can hide an array, which nothing can notice
    directory = good.index(b"PK\x01\x02")
    for place in [
        *range(bit, directory, 9),
        *range(directory, directory + 24),
        *range(end, end + 4),
    ]:
        damaged = bytearray(good)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        assert_right(cached("key", build))


def test_a_folder_that_cannot_be_made_does_no_harm(store: Path) -> None:
    store.parent.write_text("a file where the folder should be")
    for _ in range(2):
        assert_right(cached("key", build))
    assert store.parent.read_text() == "a file where the folder should be"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root"
)
def test_a_folder_that_cannot_be_written_does_no_harm(store: Path) -> None:
    store.mkdir(parents=True)
    store.chmod(0o500)
    try:
        assert_right(cached("key", build))
        assert not [*store.iterdir()]
    finally:
        store.chmod(0o700)


def test_a_folder_in_place_of_the_file_does_no_harm(store: Path) -> None:
    (store / "key.npz").mkdir(parents=True)
    assert_right(cached("key", build))
    assert [path.name for path in store.iterdir()] == ["key.npz"]


@pytest.mark.parametrize("error", [ValueError("wrong corpus"), KeyboardInterrupt()])
def test_what_fails_to_build_is_not_stored(store: Path, error: BaseException) -> None:
    def fail() -> Values:
        raise error

    with pytest.raises(type(error)):
        cached("key", fail)
    assert not store.exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.bin"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [*path.parent.iterdir()] == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_failed_rename_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_usual_permissions(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_fingerprints_follow_content_and_options_and_not_names(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in "abc")
    one.write_bytes(b"x" * 100_000)
    same.write_bytes(b"x" * 100_000)
    other.write_bytes(b"x" * 99_999 + b"y")
    key = fingerprint([one], {"scheme": "IOBES", "length": 256})
    assert fingerprint([same], {"length": 256, "scheme": "IOBES"}) == key
    keys = [
        key,
        fingerprint([other], {"scheme": "IOBES", "length": 256}),
        fingerprint([one], {"scheme": "IOBES", "length": 255}),
        fingerprint([one, one], {"scheme": "IOBES", "length": 256}),
        fingerprint([one, other], {}),
        fingerprint([other, one], {}),
        fingerprint([], {}),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and key.isalnum() for key in keys)
    assert key != hashlib.sha256(one.read_bytes()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RESIDENSE_CACHE": "/x/y"}, Path("/x/y")),
        ({"RESIDENSE_CACHE": "", "XDG_CACHE_HOME": "/x"}, Path("/x/residense")),
        (
            {"RESIDENSE_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/y"},
            Path("/y/.cache/residense"),
        ),
    ],
)
def test_the_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Path
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert folder() == expected


RACER = """
import sys, time
from pathlib import Path
import numpy as np
from residense.data.cache import cached

meeting, name, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def build():
    (meeting / name).touch()
    give_up = time.monotonic() + 60
    while not (meeting / other).exists() and time.monotonic() < give_up:
        time.sleep(0.001)
    return {"a": np.arange(200_000), "built_by": np.array(int(name))}

for number in range(5):
    found = cached(f"key{number}", build)
    assert (found["a"] == np.arange(200_000)).all()
    assert int(found["built_by"]) in (int(name), int(other))
print(int((meeting / other).exists()))
"""


def test_two_processes_may_build_the_same_arrays_at_once(tmp_path: Path, store: Path) -> None:
    pairs = [("1", "2"), ("2", "1")]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), *pair], stdout=subprocess.PIPE, text=True
        )
        for pair in pairs
    ]
    outputs = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    assert outputs == ["1", "1"]  # both were building when the first file was written
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sorted(path.name for path in store.iterdir()) == [
        f"key{number}.npz" for number in range(5)
    ]
    for number in range(5):
        found = cached(f"key{number}", never)
        np.testing.assert_array_equal(found["a"], np.arange(200_000))
