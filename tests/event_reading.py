"""Reads TensorBoard's event files as they lie on the disk, every record of them."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event


def read_events(folder: Path) -> Iterator[Event]:
    """All whole records of a folder's event files, in the order a reader takes them."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, place = file.read_bytes(), 0
        while place + 16 <= len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            record = data[place + 12 : place + 12 + length]
            if len(record) < length:  # still being written
                break
            yield Event.FromString(record)
            place += 16 + length  # length and its checksum, record and its checksum


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every (step, value) of every curve, doubles included."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                point = (event.step, round(value.simple_value, 4))
                curves.setdefault(value.tag, []).append(point)
    return curves


def read_tags(folder: Path) -> set[str]:
    """Tags of everything that is no curve: pictures, texts, tables."""
    return {
        value.tag
        for event in read_events(folder)
        for value in event.summary.value
        if not value.HasField("simple_value")
    }
