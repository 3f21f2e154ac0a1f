"""Ctrl-C and SIGTERM end a search in order, whatever it is doing."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What an interruption arrives as: Ray, once connected, has SIGTERM raise the latter.
INTERRUPTIONS = (KeyboardInterrupt, SystemExit)


@contextmanager
def interruptible() -> Iterator[None]:
    """For the time of a block, SIGTERM raises KeyboardInterrupt as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
