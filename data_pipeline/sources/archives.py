"""Unpacking an archive that may come from anybody.

Refused whole: a member whose path is absolute, climbs with "..", or holds a backslash or a drive
(a zip whose members hold backslashes alone was written on Windows: they are taken for slashes);
a path that comes twice; links, devices and pipes; sparse members; encryption; more than MAX_FILES
members or MAX_BYTES of content; content of more than MAX_RATIO times the archive beyond the first
MAX_FREE_BYTES (photos hardly shrink; a bomb shrinks a thousandfold); extended headers of more than
MAX_HEADER_BYTES; a tar without the mark of its end, or with another tar behind it, of which Python
and others would read the first part alone, without a message. Sizes are counted as bytes come out,
not taken from headers. Permissions, owners and times in the archive are not applied. `__MACOSX` is
left out. An archive inside stays a file.
"""

import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.other_files import SEEN_BYTES, no_archive_reason
from pawtune.data_pipeline.progress import Progress, silent
from pawtune.data_pipeline.safe_files import shown

MAX_FILES = 2_000_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 100
MAX_FREE_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
# Python's reader takes a tar's extended headers (long names, pax) into memory as they are, and a
# few kilobytes of gzip can hold one of gigabytes. Honest ones are some hundred bytes a member.
MAX_HEADER_BYTES = 16 * 2**20
TAIL_BYTES = 2**20  # behind a tar's end, looked at for another tar
MANY_DIGITS = re.compile(rb"\d{256}")  # a name may have 255
EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

UTF8_FLAG = 0x800  # of a member of a zip

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
    struct.error,
    LookupError,
    RuntimeError,  # a zip that needs a password; headers that lead to headers without end
    OverflowError,
    MemoryError,
)


def unpack(archive: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Unpacks a zip or tar archive (plain, gz, bz2 or xz) into a folder, which is made.

    Raises:
        DataError: no archive, a broken one, or one that breaks a rule above. What was unpacked
            until then stays in the folder: delete it.
    """
    try:
        # closing: a member that is refused half-way would stay open with its archive.
        if zipfile.is_zipfile(archive) and not _is_tar(archive):
            with zipfile.ZipFile(archive) as file, closing(_zip_members(file)) as members:
                _write(archive, folder, members, len(file.infolist()), progress or silent)
        else:
            with _open_tar(archive) as tar, closing(_tar_members(tar)) as members:
                _write(archive, folder, members, None, progress or silent)
    except DataError as error:
        raise DataError(f"{shown(archive)}: {error}") from error
    except BROKEN as error:
        text = shown(" ".join(str(error).split()))[:300] or type(error).__name__
        raise DataError(f"{shown(archive)}: cannot be unpacked: {text}") from error


def _is_tar(archive: Path) -> bool:
    """Whether it begins as a tar; with a zip as its last member it also ends as a zip does."""
    with archive.open("rb") as file:
        return file.read(tarfile.BLOCKSIZE)[257:].startswith(b"ustar")


def _zip_members(file: zipfile.ZipFile) -> Generator[Member, None, None]:
    # Some programs of Windows write a backslash between folders, against the format's rule.
    backslashes = not any("/" in info.filename for info in file.infolist())
    for info in file.infolist():
        name = _zip_name(info)
        if backslashes:
            name = name.replace("\\", "/")
        kind = info.external_attr >> 16 & 0o170000
        if kind not in (0, 0o100000, 0o040000):
            raise DataError(f"member {info.filename!r} is a link or a device: refused")
        if info.flag_bits & 1:
            raise DataError(f"member {info.filename!r} is encrypted; unpack it yourself")
        if name.endswith("/"):
            yield name, None
        else:
            with file.open(info) as content:
                yield name, content


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name. Without the flag for UTF-8 the format says CP437; many write UTF-8 all the
    same, which CP437 hardly ever is by chance."""
    if info.flag_bits & UTF8_FLAG or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _Tar(tarfile.TarFile):
    """A tar from an untrusted source: it counts what its extended headers take."""

    header_bytes = 0


class _Replayed:
    """Stands in for a tar's file during one read whose content was read before."""

    def __init__(self, tar: _Tar, file: Any, content: bytes) -> None:
        self._tar, self._file, self._content = tar, file, content

    def read(self, size: int) -> bytes:
        self._tar.fileobj = self._file
        return self._content[:size]


class _TarMember(tarfile.TarInfo):
    """A member whose extended headers and sparse maps are refused before they are read."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """The next member. Python takes a damaged header, but for the first, for the end."""
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:  # its kinds are not public
            if not tar.offset or type(error).__name__ in (
                "EOFHeaderError",
                "SubsequentHeaderError",
            ):
                raise
            raise DataError(
                f"a tar must end with a mark of its end, but after {tar.offset:,} bytes there is "
                "none and no member: cut off or damaged; fetch it again, or unpack it yourself "
                "and give the folder"
            ) from None

    def _proc_member(self, tar: _Tar) -> tarfile.TarInfo:
        if self.type in EXTENDED_HEADERS:
            tar.header_bytes += self.size
            if not 0 <= self.size <= tar.header_bytes <= MAX_HEADER_BYTES:
                raise DataError(
                    f"its extended headers take more than {MAX_HEADER_BYTES // 2**20} MiB: refused "
                    "as a decompression bomb"
                )
            self._refuse_digits(tar)
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _refuse_digits(self, tar: _Tar) -> None:
        """Python up to 3.11.9 searches pax headers in the square of a number's length: 1 MiB of
        digits takes an hour (CVE-2024-6232). What is read here is handed to it as if read there.
        """
        file: Any = tar.fileobj
        content = file.read(-(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if MANY_DIGITS.search(content):
            raise DataError(
                "its extended headers hold numbers without end: refused as a decompression bomb"
            )
        stand_in: Any = _Replayed(tar, file, content)
        tar.fileobj = stand_in

    def _refuse_sparse(self, *_: object) -> None:
        raise DataError(f"member {self.name!r} is sparse: refused, pack it without holes")

    # How the three versions of pax' sparse format are read, each with an unbounded map.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def _open_tar(archive: Path) -> tarfile.TarFile:
    try:
        return _Tar.open(archive, tarinfo=_TarMember)
    except tarfile.ReadError as error:
        with archive.open("rb") as file:
            reason = no_archive_reason(archive.name, file.read(SEEN_BYTES))
        raise DataError(reason) from error


def _tar_members(file: tarfile.TarFile) -> Generator[Member, None, None]:
    for info in file:
        if info.isdir():
            yield info.name, None
        elif info.isreg():
            yield info.name, file.extractfile(info)
        else:
            raise DataError(f"member {info.name!r} is a link or a device: refused")
    stream: Any = file.fileobj
    tail = stream.read(TAIL_BYTES)
    if any(tail.startswith(b"ustar", at) for at in range(257, len(tail), tarfile.BLOCKSIZE)):
        raise DataError(
            "holds another tar behind its end, which would be left out; unpack it yourself "
            "(tar --ignore-zeros) and give the folder"
        )


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
            if os.path.lexists(target):
                raise DataError(f"member {name!r} comes twice (on this file system): refused")
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
                    f"to more than {MAX_BYTES // 2**30} GiB): refused as a decompression bomb; "
                    "if it is none, unpack it yourself and give the folder"
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
