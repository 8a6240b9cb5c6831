"""The files W&B keeps in a run directory: a segment for each start of the run, the end of which a kill takes with it.

A segment is a LevelDB log. Its blocks are of 32 KiB, the first begins with 7 bytes of W&B's own; in them are records,
whole or in pieces, each piece behind a header of checksum, length and kind.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK, START, HEADER = 2**15, 7, struct.Struct("<IHB")
FULL, FIRST, LAST = 1, 2, 4  # kinds; 3 is a piece between the first and the last


class Row(NamedTuple):
    """What one call of `log` left: the optimiser step, and values by name, as JSON."""

    step: int
    values: dict[str, str]


def segments(run_dir: Path, name: str) -> list[Path]:
    """The segments of the W&B run `name`, offline and online."""
    return [path for path in run_dir.glob("wandb/*run-*/run-*.wandb") if path.stem == f"run-{name}"]


def rows(segment: Path) -> Iterator[Row]:
    """What was logged with an optimiser step, up to where the file is damaged or ends."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    for record in records(segment.read_bytes()):
        items = Record.FromString(record).history.item
        values = {item.key or ".".join(item.nested_key): item.value_json for item in items}
        if "trainer/global_step" in values:
            yield Row(int(json.loads(values["trainer/global_step"])), values)


def records(data: bytes) -> Iterator[bytes]:
    """The records of a segment, up to where it is damaged or ends."""
    place, record = START, b""
    while place + HEADER.size <= len(data):
        if (
            BLOCK - place % BLOCK < HEADER.size
        ):  # no header fits: the rest of the block is filled up
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = HEADER.unpack_from(data, place)
        piece, end = place + HEADER.size, place + HEADER.size + length
        if zlib.crc32(data[piece - 1 : end]) != checksum:  # of the kind and the content
            return
        if kind in (FULL, FIRST):
            record = b""
        record += data[piece:end]
        if kind in (FULL, LAST):
            yield record
        place = end
