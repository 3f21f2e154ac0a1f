"""Unpacking an archive that may come from anybody.

Refused whole: a member whose path is absolute, climbs with "..", or holds a backslash or a drive;
links, devices and pipes; encryption; more than MAX_FILES members or MAX_BYTES of content; content
of more than MAX_RATIO times the archive beyond the first MAX_FREE_BYTES (photos hardly shrink; a
bomb shrinks a thousandfold). Sizes are counted as bytes come out, not taken from headers.
Permissions, owners and times in the archive are not applied. `__MACOSX` is left out.
"""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from data_pipeline.errors import DataError
from data_pipeline.progress import Progress, silent

MAX_FILES = 2_000_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 100
MAX_FREE_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20

Member = tuple[str, IO[bytes] | None]
"""A path in the archive and its content; None for a folder."""

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip compression that Python does not know
    UnicodeError,
    ValueError,
    OSError,
)


def unpack(archive: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Unpacks a zip or tar archive (plain, gz, bz2 or xz) into a folder, which is made.

    Raises:
        DataError: no archive, a broken one, or one that breaks a rule above. What was unpacked
            until then stays in the folder: delete it.
    """
    try:
        # closing: a member that is refused half-way would stay open with its archive.
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file, closing(_zip_members(file)) as members:
                _write(archive, folder, members, len(file.infolist()), progress or silent)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar, closing(_tar_members(tar)) as members:
                _write(archive, folder, members, None, progress or silent)
        else:
            raise DataError("not an archive; zip and tar (plain, gz, bz2, xz) can be unpacked")
    except DataError as error:
        raise DataError(f"{archive}: {error}") from error
    except BROKEN as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}") from error


def _zip_members(file: zipfile.ZipFile) -> Generator[Member, None, None]:
    for info in file.infolist():
        kind = info.external_attr >> 16 & 0o170000
        if kind not in (0, 0o100000, 0o040000):
            raise DataError(f"member {info.filename!r} is a link or a device: refused")
        if info.flag_bits & 1:
            raise DataError(f"member {info.filename!r} is encrypted; unpack it yourself")
        if info.is_dir():
            yield info.filename, None
        else:
            with file.open(info) as content:
                yield info.filename, content


def _tar_members(file: tarfile.TarFile) -> Generator[Member, None, None]:
    for info in file:
        if info.isdir():
            yield info.name, None
        elif info.isreg():
            yield info.name, file.extractfile(info)
        else:
            raise DataError(f"member {info.name!r} is a link or a device: refused")


def _write(
    archive: Path, folder: Path, members: Iterator[Member], total: int | None, progress: Progress
) -> None:
    compressed = archive.stat().st_size
    room = min(MAX_BYTES, max(MAX_FREE_BYTES, MAX_RATIO * compressed))
    folder.mkdir(parents=True, exist_ok=True)
    for count, (name, content) in enumerate(members, start=1):
        if count > MAX_FILES:
            raise DataError(f"more than {MAX_FILES:,} members: refused")
        target = folder / safe_path(name)
        if target.relative_to(folder).parts[:1] == ("__MACOSX",):
            continue
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            room -= _copy(content, target, room, compressed)
        progress("unpack", count, total)


def _copy(content: IO[bytes], target: Path, room: int, compressed: int) -> int:
    """Copies at most `room` bytes; returns how many it were."""
    written = 0
    with target.open("xb") as file:
        while chunk := content.read(CHUNK_BYTES):
            written += len(chunk)
            if written > room:
                raise DataError(
                    f"its {compressed:,} bytes unpack to more than {MAX_RATIO} times as much (or "
                    f"to more than {MAX_BYTES // 2**30} GiB): taken for a bomb; if it is "
                    "none, unpack it yourself and give the folder"
                )
            file.write(chunk)
    return written


def safe_path(name: str) -> PurePosixPath:
    """A member's path below the folder that it is unpacked into.

    Raises:
        DataError: the path would leave it, or could on some system.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise DataError(f"member {name!r} leaves the folder: refused")
    if "\\" in name or re.match("[A-Za-z]:", name):
        raise DataError(f"member {name!r} holds a backslash or a drive letter: refused")
    return path
