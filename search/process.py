"""This process: TensorFlow loaded without its banner, and interruptions that end it in order."""

import os
import signal
import sys
import tempfile
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


def load_tensorflow() -> None:
    """Imports TensorFlow and starts its devices, with what it has to say about them held back.

    TensorFlow 2.21 writes a dozen lines on CUDA and oneDNN to stderr before it reads
    TF_CPP_MIN_LOG_LEVEL. They would bury the one line that a person asked for.
    """
    with held_back_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.constant(0)


@contextmanager
def held_back_stderr() -> Iterator[None]:
    """Holds back what anybody, C++ included, writes to stderr; shows it where an error comes."""
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            except BaseException:
                os.dup2(shown, 2)
                held.seek(0)
                os.write(2, held.read())
                raise
            finally:
                os.dup2(shown, 2)
    finally:
        os.close(shown)
