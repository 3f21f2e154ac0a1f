"""Turns: what one process does at a time, while others wait for it to be done."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def build_lock(folder: Path, waits: Callable[[str], None] = lambda line: None) -> Iterator[Path]:
    """Waits until nobody else builds a folder of the cache, or a file; keeps others waiting.

    A process that dies gives its turn back by dying. Two searches that build the same, on a file
    system that knows no locks, cost time and nothing else: folders appear whole, the first stays.

    Args:
        folder: Folder that is to be built.
        waits: Called where another process holds the lock.

    Yields:
        The file that stands for the turn.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    turn = folder.parent / f".{folder.name}.lock"
    handle = os.open(turn, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits("waits for another search, which is making the same")
                fcntl.flock(handle, fcntl.LOCK_EX)
            for left in folder.parent.glob(f".{folder.name}.*.partial"):
                shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
        yield turn
    finally:
        os.close(handle)
