"""Writing a file so that a reader sees the old content or the new, never a part; reading one that
may be anything; and file names as a person can be shown them."""

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pawtune.data_pipeline.errors import DataError

NOT_REGULAR = "not a regular file"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; moved into place if all goes well.

    The temporary name keeps the suffix, by which writers choose a format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str) -> None:
    """Writes a UTF-8 text file whole or not at all; its folder is made."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="")


def reserve(path: Path, size: int | None = None) -> None:
    """Takes a file's whole space on the disk now: mapped memory without it kills the process.

    Args:
        path: The file, which exists.
        size: Its size in bytes at last; default: as it is.

    Raises:
        OSError: There is no such room.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size if size is None else size)


def read_regular(path: Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The bytes of a regular file; nothing else is waited for or read without end.

    Args:
        path: pipes, devices, sockets and folders are refused.
        max_bytes: no more is read, whatever the file says of its size.
        follow_links: whether the file itself may be a symbolic link.

    Raises:
        OSError: it cannot be read; `strerror` says why.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links and path.is_symlink():
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed") from None
        if error.errno == errno.ENXIO:  # a socket, or a pipe that nobody reads
            raise OSError(errno.ENXIO, NOT_REGULAR) from None
        raise
    except ValueError as error:  # a zero byte, or letters that no file system has
        raise OSError(errno.EINVAL, f"no file can have this name ({error})") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR)
        if status.st_size <= max_bytes:
            # For as many bytes as it is asked for, read() sets memory aside first.
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:  # it grows, or is made up by the system
                data += file.read(max_bytes + 1 - len(data))
            if len(data) <= max_bytes:
                return data
        limit = f"at most {max_bytes / 2**20:,.0f} MiB is read"
        size = max(status.st_size, max_bytes + 1)
        raise OSError(errno.EFBIG, f"file of {size / 2**20:,.0f} MiB; {limit}")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path, with the home folder for a ~ at its beginning.

    Raises:
        DataError: It is that of a user whom this machine does not know.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            "a path that begins with ~ must name a user of this machine, received "
            f"{shown(path)!r}; give the full path"
        ) from error


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path on one line of valid UTF-8, whatever bytes its names hold.

    >>> shown("two\nlines \udce9 \x1b[31m.jpg")
    'two\\nlines \\xe9 \\x1b[31m.jpg'
    """
    text = os.fspath(path)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name, which stays when another file takes the first; or copies it."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
