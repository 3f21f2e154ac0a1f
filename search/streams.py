"""stdin, stdout and stderr, so that no locale, closed descriptor or full disk ends a command badly.

Progress goes to stderr, and losing it must not end a search of hours. Results go to stdout: where
they cannot be written the command says so and exits with 1.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OutputError(Exception):
    """stdout cannot be written. It is no OSError, which would read as a problem with a file."""


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.strerror) from error


class _Progress(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:  # the terminal is gone, the pipe closed, the disk full
            return memoryview(data).nbytes


@contextmanager
def safe_streams() -> Iterator[None]:
    """Within the block, stdin, stdout and stderr are usable, whatever they were before.

    Raises:
        OutputError: stdout could not be written.
    """
    _read_names_as_utf8()
    _open_closed()
    if sys.stdin is None:  # it was closed: nothing to read, and no terminal
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    if sys.stdout is None or sys.stdout is sys.__stdout__:  # a test may have put its own there
        sys.stdout = _rebuilt(sys.stdout, _Output, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _rebuilt(sys.stderr, _Progress, 2)
    try:
        yield
        sys.stdout.flush()
    except OutputError:
        _drop(1)  # Python would try again at its end
        raise
    except BaseException:
        try:
            sys.stdout.flush()
        except OutputError:
            _drop(1)
        raise


def _read_names_as_utf8() -> None:
    """Starts the command again where Python reads file names by an 8-bit locale.

    A name would otherwise become other letters, which other machines and locales do not find again.
    What is printed remains in the terminal's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    encoding = sys.stdout.encoding if sys.stdout is not None else "ascii"
    environment = {**os.environ, "PYTHONUTF8": "1"}
    environment.setdefault("PYTHONIOENCODING", encoding)
    with suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _open_closed() -> None:
    """A file opened later would otherwise become stdout, and be written into."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one


def _rebuilt(stream: TextIO | None, kind: type[io.FileIO], descriptor: int) -> TextIO:
    """The same stream; what its encoding lacks is written as an escape (`\\u2192`)."""
    if stream is not None:
        with suppress(OSError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(descriptor, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )


def _drop(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
