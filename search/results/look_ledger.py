"""The ledger of looks at the test split: one JSON object a line, appended, never rewritten.

Looks may be taken at the same time, by several people: each appends under a lock, of the file
itself or of the object store, and counts the looks before it.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.safe_files import shown
from pawtune.search.errors import UserError
from pawtune.search.storage.lease import StoreLock
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.storage.untrusted_files import MAX_JSON_BYTES, read_look

MAX_LOOKS = 10_000
# What only the last look is shown with: at 1,000 classes and 50,000 images 3 MB a look.
BULKY = ("classes", "confusion", "confusion_cells", "mistakes")


def read_ledger(run: RunFolder) -> list[dict[str, Any]]:
    """Every look so far, oldest first; all but the last without their `BULKY` parts.

    Raises:
        UserError: A line is not what a look leaves.
    """
    if not run.test_ledger.exists():
        return []
    with _opened(run.test_ledger, os.O_RDONLY | os.O_NONBLOCK) as file:
        return _read(run.test_ledger, file)


def record_look(run: RunFolder, look: Mapping[str, Any]) -> int:
    """Appends a look at the test split; returns its number, from 1.

    Args:
        run: The run.
        look: As JSON; its `looks` is set here, its `confusion` is kept as `confusion_cells`:
            (true class, predicted class, images) of each cell that is not empty.

    Raises:
        UserError: The ledger cannot be read or written, or is held by another process for a
            minute.
        DataError: The object store cannot be used.
    """
    confusion = np.array(look["confusion"])
    places = np.argwhere(confusion)
    cells = [[int(a), int(b), int(confusion[a, b])] for a, b in places]
    content = {name: value for name, value in look.items() if name != "confusion"}
    if run.mirror is None:
        return _append(run.test_ledger, {**content, "confusion_cells": cells})
    with StoreLock(run.mirror, run.test_ledger.stem, wait_s=60.0):
        run.mirror.fetch(run.test_ledger)
        looks = _append(run.test_ledger, {**content, "confusion_cells": cells})
        run.mirror.push(run.test_ledger, patience_s=60.0)
    return looks


def look_confusion(look: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """(C, C) images by true and predicted class of a look; None where it kept none.

    Raises:
        ValueError, TypeError, IndexError: It does not fit the look's class names.
    """
    classes = len(look.get("class_names") or ())
    if look.get("confusion"):  # as looks were recorded before cells were
        return np.array(look["confusion"], np.int64).reshape(classes, classes)
    if not look.get("confusion_cells"):
        return None
    cells = np.array(look["confusion_cells"], np.int64).reshape(-1, 3)
    if cells.min() < 0:
        raise ValueError("a cell of the confusion is below 0")
    confusion = np.zeros((classes, classes), np.int64)
    confusion[cells[:, 0], cells[:, 1]] = cells[:, 2]
    return confusion


def _append(path: Path, look: dict[str, Any]) -> int:
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        earlier = _read(path, file)
        look["looks"] = len(earlier) + 1
        cut_off = b"\n" if earlier and not _ends_with_line_end(file) else b""
        file.write(cut_off + dumps(look, allow_nan=False).encode() + b"\n")
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


def _read(path: Path, file: IO[bytes]) -> list[dict[str, Any]]:
    looks: list[dict[str, Any]] = []
    while line := file.readline(MAX_JSON_BYTES + 1):
        if len(line) > MAX_JSON_BYTES or len(looks) >= MAX_LOOKS:
            raise UserError(
                f"{shown(path)} may hold {MAX_LOOKS:,} looks of {MAX_JSON_BYTES:,} bytes each, "
                "received more; restore the file, or move it away"
            )
        if line.strip():
            if looks:
                looks[-1] = {key: v for key, v in looks[-1].items() if key not in BULKY}
            looks.append(read_look(path, line.decode("utf-8", errors="replace")))
    return looks
