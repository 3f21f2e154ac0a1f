"""Loads TensorFlow without its banner."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


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
