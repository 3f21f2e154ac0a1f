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


@contextmanager
def undisturbed() -> Iterator[None]:
    """For the time of a block, interruptions wait: Ray half begun aborts the process at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        raise KeyboardInterrupt
