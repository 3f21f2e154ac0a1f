"""Storage that is full, or away for a while: waited for, then reported in one line."""

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pawtune.search.errors import UserError

PATIENCE_S = 60.0  # a server that restarts, a disk that somebody clears
PAUSE_S = 0.5
HDF5_ERROR = re.compile(r"\berrno = (\d+), error message = '")

Result = TypeVar("Result")


class StorageError(OSError):
    """A folder could not be used for as long as one waits; the text is for people."""


def retry_storage(use: Callable[[], Result], what: str = "the run folder") -> Result:
    """Repeats a read or write of a folder while the storage fails.

    Args:
        use: May be called several times.
        what: The folder, for people.

    Raises:
        StorageError: It failed for PATIENCE_S.
    """
    deadline = None
    while True:
        try:
            return use()
        except StorageError:
            raise
        except (OSError, RuntimeError, UserError) as error:
            if not _is_of_storage(error):
                raise
            now = time.monotonic()
            deadline = deadline or now + PATIENCE_S
            if now >= deadline:
                reason = " ".join(str(error).split())[:300]
                raise StorageError(
                    f"{what} could not be used for {PATIENCE_S:g} s: {reason}"
                ) from error
        time.sleep(PAUSE_S)


def _is_of_storage(error: Exception) -> bool:
    """Whether it is, in whatever words, that a file could not be used."""
    if isinstance(error, UserError):
        return isinstance(error.__cause__, OSError)
    # h5py reports a full disk as either kind; of a RuntimeError only the text has the number.
    found = HDF5_ERROR.search(str(error)) if isinstance(error, RuntimeError) else None
    return isinstance(error, OSError) or (found is not None and int(found[1]) in errno.errorcode)


def must_exist(folder: Path) -> None:
    """Raises where a folder is away: what looks for a file in it would find none and continue.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    os.stat(folder)


def storage_error(error: BaseException | None) -> StorageError | None:
    """The StorageError that an error came from, through whatever libraries; None: another."""
    while error is not None and not isinstance(error, StorageError):
        error = error.__cause__ or error.__context__
    return error
