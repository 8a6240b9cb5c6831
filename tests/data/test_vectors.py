"""Word vectors from every kind of file that is around, and every kind of damage."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from residense.data.vectors import load_vectors

PLAIN = "the 0.1 -2.5 3e-2\nof 1 2 3\nZürich 0 0 0.5\n"
WORDS = ["the", "of", "Zürich"]
MATRIX = np.array([[0.1, -2.5, 0.03], [1, 2, 3], [0, 0, 0.5]], np.float32)

Write = Callable[[str, bytes], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "text",
    [PLAIN, f"3 3\n{PLAIN}", PLAIN.replace("\n", " \n"), PLAIN.replace("\n", "\r\n"), PLAIN[:-1]],
)
@pytest.mark.parametrize("kind", ["txt", "vec", "gz", "zip"])
def test_vectors_are_read_from_files_of_every_kind(write: Write, text: str, kind: str) -> None:
    packed = {"gz": gzip.compress(text.encode()), "zip": zipped(glove__txt=text, README="hello")}
    path = write(f"vectors.{kind}", packed.get(kind, text.encode()))
    for _ in range(2):  # parsed, then from the cache
        words, matrix = load_vectors(path)
        assert words == WORDS
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, MATRIX)


def test_a_file_is_parsed_once_and_again_when_it_changes(write: Write, cache: Path) -> None:
    path = write("v.txt", PLAIN.encode())
    load_vectors(str(path))
    (stored,) = cache.iterdir()
    before = stored.stat().st_mtime_ns
    path = path.rename(path.with_name("moved.txt"))
    load_vectors(path)
    assert [*cache.iterdir()] == [stored]
    assert stored.stat().st_mtime_ns == before
    path.write_text("a 9\n")
    words, matrix = load_vectors(path)
    assert (words, matrix.tolist()) == (["a"], [[9.0]])
    assert len([*cache.iterdir()]) == 2


def test_words_may_hold_spaces(write: Write) -> None:
    words, matrix = load_vectors(write("v.txt", b"the 1 2\n. . . 3 4\nat name@domain.com 5 6\n"))
    assert words == ["the", ". . .", "at name@domain.com"]
    assert matrix.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_the_first_of_several_vectors_of_a_word_counts(write: Write) -> None:
    words, matrix = load_vectors(write("v.txt", b"a 1 2\nb 3 4\na 5 6\nc 7 8\n"))
    assert words == ["a", "b", "c"]
    assert matrix.tolist() == [[1, 2], [3, 4], [7, 8]]


def test_words_that_are_not_utf8_are_replaced(write: Write) -> None:
    words, matrix = load_vectors(write("v.txt", "caf\xe9 1 2\nb 3 4\n".encode("latin-1")))
    assert words == ["caf\ufffd", "b"]
    assert matrix.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\xa0", "\x0c", "\u3000", "\t"])
def test_only_spaces_and_line_feeds_part_a_file(write: Write, odd: str) -> None:
    words, matrix = load_vectors(write("v.txt", f"a{odd}b 1 2\n{odd} 3 4\n".encode()))
    assert words == [f"a{odd}b", odd]
    assert matrix.tolist() == [[1, 2], [3, 4]]


def test_numbers_that_look_like_a_header_are_one_only_in_the_first_line(write: Write) -> None:
    words, matrix = load_vectors(write("v.txt", b"7 1\na 2\n8 3\n"))
    assert words == ["a", "8"]
    assert matrix.tolist() == [[2], [3]]
    assert load_vectors(write("w.txt", b"7 1 2\na 2 3\n")).words == ["7", "a"]


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("a 1 2\nb 1\n", 2, "1"),
        ("a 1 2\nb 1 two\n", 2, "1 two"),
        ("a 1 2\nb 1 nan\n", 2, "1 nan"),
        ("a 1 2\nb 1 1e99\n", 2, "1 1e99"),
        ("a 1 2\nb 1 2\nc  2\n", 3, " 2"),
        ("a 1 2\n\nb 1 2\n", 2, ""),
        ("2 2\na 1 inf\n", 2, "1 inf"),
        ("word\n", 1, ""),
        ("<html>\n", 1, ""),
        ("a b c\n", 1, "b c"),
    ],
)
def test_a_malformed_line_is_named(write: Write, text: str, line: int, shown: str) -> None:
    message = (
        rf"v\.txt:{line}: expected a word and [12] finite numbers, read '{shown}'; correct the line"
    )
    with pytest.raises(ValueError, match=message):
        load_vectors(write("v.txt", text.encode()))


def test_a_long_malformed_line_is_cut(write: Write) -> None:
    with pytest.raises(ValueError, match=r"read 'x{60}'; correct"):
        load_vectors(write("v.txt", b"a " + b"x" * 10_000))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.txt", b""),
        ("v.txt", b"400000 300\n"),
        ("v.gz", gzip.compress(b"", mtime=0)),
        ("v.zip", zipped(a__txt="")),
    ],
)
def test_a_file_without_vectors_is_refused(write: Write, name: str, content: bytes) -> None:
    with pytest.raises(ValueError, match=rf"{name}: the file has no vectors"):
        load_vectors(write(name, content))


LONG = "".join(f"word{i} {i} {i % 7}.5\n" for i in range(5000))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.gz", gzip.compress(LONG.encode())[:-100]),
        ("v.gz", gzip.compress(LONG.encode())[:-4]),
        ("v.gz", PLAIN.encode()),
        ("v.gz", gzip.compress(LONG.encode())[:40] + b"\xff" * 900),
        ("v.zip", zipped(a__txt=LONG)[:-100]),
        ("v.zip", PLAIN.encode()),
        ("v.zip", zipped(a__txt=LONG).replace(zipped(a__txt=LONG)[200:240], b"\xff" * 40, 1)),
    ],
)
def test_a_damaged_archive_is_named_and_not_cached(
    write: Write, cache: Path, name: str, content: bytes
) -> None:
    with pytest.raises(
        ValueError,
        match=rf"{name}: cannot be read \(.*; the file is damaged or not what its name says",
    ):
        load_vectors(write(name, content))
    assert not cache.exists()


@pytest.mark.parametrize("members", [{"README": "x"}, {"a__txt": PLAIN, "b__vec": PLAIN}])
def test_an_archive_must_hold_one_file_of_vectors(write: Write, members: dict[str, str]) -> None:
    message = r"v\.zip: expected one \.txt or \.vec file inside, found (none|a\.txt, b\.vec); extract the right"
    with pytest.raises(ValueError, match=message):
        load_vectors(write("v.zip", zipped(**members)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.txt", tmp_path):
        with pytest.raises(
            ValueError, match=rf"{path.name}: no such vector file; .*--data\.vectors"
        ):
            load_vectors(path)
