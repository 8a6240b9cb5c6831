"""What happens to files and settings by accident."""

import copy
import random
import re
from collections.abc import Callable
from typing import Any

NASTY = [
    *(
        b"",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\r",
        b"\x1a",
        b"\x85",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\t" * 40,
        b" ",
    ),
    *(
        char.encode()
        for char in ("\u2028", "\u202e", "\U0001f600", "e" + "\u0301" * 200, "\ufeff", "\u3000")
    ),
    *(
        b"NaN",
        b"-1",
        b"1e999",
        b"-inf",
        b"null",
        b"true",
        b"{}",
        b'"',
        b"'",
        b",",
        b";",
        b"|",
        b"#",
        b"9" * 5000,
    ),
    *(
        b"a" * 100_000,
        b"[" * 3000,
        b'{"a":' * 3000,
        b"../../etc/passwd",
        b"-DOCSTART-",
        b"# text = x",
        b"B-",
        b"I-X",
        b"%s",
    ),
]
VALUES: list[Any] = [
    None,
    -1,
    0,
    1,
    2,
    7,
    1000,
    0.5,
    -0.5,
    1.5,
    float("nan"),
    float("inf"),
    True,
    False,
    "",
    "x",
    "1e3",
]
VALUES += [
    [],
    {},
    [1, 2],
    [[]],
    {"a": 1},
    [None],
    "null",
    "../x",
    "x.yaml",
    "x.Y",
    "\u202e",
    "a\0b",
    "os.system",
    10**30,
]
LASTING = (
    "epochs",
    "steps",
    "devices",
    "num_nodes",
    "strategy",
    "accelerator",
    "max_time",
    "plugins",
    "run_dir",
    "size",
)


def mangled(rng: random.Random, data: bytes) -> bytes:
    """A file after an accident or two."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(ACCIDENTS)(rng, data)
    return data


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def hole(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(200) :]


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5) if data else 0):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(NASTY) + data[place:]


def field(rng: random.Random, data: bytes) -> bytes:
    """One field of a line becomes another, goes, or comes twice."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    parts = re.split(rb"([\t, :]+)", lines[place])
    which = rng.randrange(len(parts))
    parts[which : which + 1] = rng.choice(([], [rng.choice(NASTY)], [parts[which]] * 3))
    lines[place] = b"".join(parts)
    return b"\n".join(lines)


def shuffle(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def few(rng: random.Random, data: bytes) -> bytes:
    return b"\n".join(rng.sample(lines := data.split(b"\n"), min(len(lines), rng.randrange(4))))


def recode(rng: random.Random, data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32")), "replace"
    )


def ends(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"", b"\n\r")))


ACCIDENTS: list[Callable[[random.Random, bytes], bytes]] = [
    cut,
    hole,
    flip,
    insert,
    insert,
    field,
    field,
    field,
]
ACCIDENTS += [shuffle, few, recode, ends]


def corrupted(rng: random.Random, config: Any) -> Any:
    """A config in which one value is another."""
    config = copy.deepcopy(config)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any, path: str = "") -> None:
        for key in (
            value
            if isinstance(value, dict)
            else range(len(value))
            if isinstance(value, list)
            else ()
        ):
            if not any(name in f"{path}.{key}" for name in LASTING):
                places.append((value, key))
                walk(value[key], f"{path}.{key}")

    walk(config)
    holder, key = rng.choice(places)
    holder[key] = rng.choice(VALUES)
    return config
