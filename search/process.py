"""This process: TensorFlow loaded without its banner, and interruptions that end it in order."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

# What an interruption arrives as: Ray, once connected, has SIGTERM raise the latter.
INTERRUPTIONS = (KeyboardInterrupt, SystemExit)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A KeyboardInterrupt on its way through Typer, which would end without a message."""


@contextmanager
def handling(handle: Callable[[], None], *numbers: signal.Signals) -> Iterator[None]:
    """Within the block, signals call a function; only the main thread can handle signals.

    SIGHUP, which comes when the terminal's window closes, is left alone where it is ignored:
    `nohup` is meant to outlive the window.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        handle()

    before = {
        number: signal.signal(number, on_signal)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block, interruptions wait: a half-started Ray aborts the process at its end.

    What is started in it does not receive SIGHUP: Ray must outlive a closed window until the search
    has ended in order.
    """
    waiting: list[bool] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # processes inherit it
    try:
        with handling(lambda: waiting.append(True), *STOP_SIGNALS):
            yield
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if waiting:
        raise KeyboardInterrupt


def load_tensorflow() -> None:
    """Imports TensorFlow and starts its devices, with what it has to say about them held back.

    TensorFlow 2.21 writes a dozen lines on CUDA and oneDNN to stderr before it reads
    TF_CPP_MIN_LOG_LEVEL. They would bury the one line that a person asked for.
    """
    with held_back_stderr():
        import tensorflow as tf

        for gpu in tf.config.get_visible_devices("GPU"):
            # A search may run beside this process: it takes no more of the card than it needs.
            # Where the user has computed before, or set a limit, that stands.
            with suppress(RuntimeError, ValueError):
                tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.list_physical_devices()
        tf.constant(0)


@contextmanager
def held_back_stderr() -> Iterator[None]:
    """Holds back what is written to stderr, by C++ too; prints it if an error is raised.

    A library may end the process, by abort() or exit(): then one line says so, with the last one
    of stderr.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held, _reporting_an_end(held, shown):
            os.dup2(held.fileno(), 2)
            try:
                yield
            except Exception:
                os.dup2(shown, 2)
                held.seek(0)
                os.write(2, held.read())
                raise
            finally:
                os.dup2(shown, 2)
    finally:
        os.close(shown)


# Waits for the process that started it. Nothing on stdin: that one has ended within the block.
_REPORT_END = """
import os, sys
if not sys.stdin.buffer.read(1):
    size = os.fstat(1).st_size
    lines = os.pread(1, 4000, max(0, size - 4000)).decode(errors="replace").splitlines()
    last = next((line.strip()[:300] for line in reversed(lines) if line.strip()), "nothing")
    print(f"pawtune: this process was ended while a library was loaded, received: {last}; "
          "`pawtune doctor` checks what it needs", file=sys.stderr)
"""


@contextmanager
def _reporting_an_end(held: IO[bytes], shown: int) -> Iterator[None]:
    """Within the block, a process watches that this one does not end.

    Args:
        held: The file that receives stderr.
        shown: Descriptor of the stderr that a person sees.
    """
    words = [sys.executable, "-I", "-S", "-c", _REPORT_END]
    try:
        watcher = subprocess.Popen(  # of another session: Ctrl-C is not meant for it
            words, stdin=subprocess.PIPE, stdout=held, stderr=shown, start_new_session=True
        )
    except (OSError, TypeError):  # no more processes, or no name of this Python: a message less
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            watcher.communicate(b".")
