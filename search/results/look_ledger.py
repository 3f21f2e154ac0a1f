"""The ledger of looks at the test split: one JSON object a line, appended, never rewritten.

Looks may be taken at the same time, by several people: each appends under a lock, of the file
itself or of the object store, and counts the looks before it.
"""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import IO

from pawtune.data_pipeline.safe_files import shown
from pawtune.search.errors import UserError, not_writable
from pawtune.search.results.evaluation_record import EvaluationRecord
from pawtune.search.storage.lease import StoreLock
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.storage.untrusted_files import MAX_JSON_BYTES

MAX_LOOKS = 10_000


def refuse_unwritable(run: RunFolder) -> None:
    """Refuses a run that could not keep a look, before anybody looks.

    Raises:
        UserError: No file can be written there.
    """
    try:
        with tempfile.TemporaryFile(dir=run.root):
            pass
    except OSError as error:
        raise not_writable(run.root, error) from error


def read_ledger(run: RunFolder) -> list[EvaluationRecord]:
    """Every look so far, oldest first; all but the last `in_short`.

    Raises:
        UserError: A line is not what a look leaves.
    """
    if not run.test_ledger.exists():
        return []
    with _opened(run.test_ledger, os.O_RDONLY | os.O_NONBLOCK) as file:
        return _read(run.test_ledger, file)


def record_look(run: RunFolder, look: EvaluationRecord) -> int:
    """Appends a look at the test split; returns its number, from 1.

    Args:
        run: The run.
        look: Its `looks` is set here.

    Raises:
        UserError: The ledger cannot be read or written, or is held by another process for a
            minute.
        DataError: The object store cannot be used.
    """
    if run.mirror is None:
        return _append(run.test_ledger, look)
    with StoreLock(run.mirror, run.test_ledger.stem, wait_s=60.0):
        run.mirror.fetch(run.test_ledger)
        looks = _append(run.test_ledger, look)
        run.mirror.push(run.test_ledger, patience_s=60.0)
    return looks


def _append(path: Path, look: EvaluationRecord) -> int:
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        earlier = _read(path, file)
        numbered = look.model_copy(update={"looks": len(earlier) + 1})
        cut_off = b"\n" if earlier and not _ends_with_line_end(file) else b""
        file.write(cut_off + dumps(numbered.as_dict(), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return len(earlier) + 1


def _ends_with_line_end(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[IO[bytes]]:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        mode = "rb" if flags & os.O_NONBLOCK else "a+b"
        with os.fdopen(descriptor, mode) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("not a regular file")
            file.seek(0)
            yield file
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        reason = "a symbolic link, which is not followed" if is_link else error.strerror or error
        raise UserError(
            f"the ledger of looks at the test split must be a file that can be read and written: "
            f"{shown(path)}: {reason}; restore the file, or move it away"
        ) from error


def _read(path: Path, file: IO[bytes]) -> list[EvaluationRecord]:
    looks: list[EvaluationRecord] = []
    while line := file.readline(MAX_JSON_BYTES + 1):
        if len(line) > MAX_JSON_BYTES or len(looks) >= MAX_LOOKS:
            raise UserError(
                f"{shown(path)} may hold {MAX_LOOKS:,} looks of {MAX_JSON_BYTES:,} bytes each, "
                "received more; restore the file, or move it away"
            )
        if line.strip():
            if looks:
                looks[-1] = looks[-1].in_short()
            looks.append(EvaluationRecord.parse(path, line.decode("utf-8", errors="replace")))
    return looks
