"""Precision and threads: what this machine computes best, set before anything is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from models.hardware import cpu_has_bfloat16
from models.spec import Precision


def resolve_precision(precision: Precision, has_gpu: bool) -> str:
    """The Keras policy that a worker trains under.

    `auto` is mixed_bfloat16 on a CPU with AVX512-BF16 or AMX and on a GPU from compute
    capability 8.0 (Ampere), mixed_float16 on a GPU from 7.0 (tensor cores), else float32.

    Args:
        precision: as in the spec; all but `auto` are taken as they are.
        has_gpu: whether this worker has a GPU to train on.
    """
    if precision != "auto":
        return precision
    if not has_gpu:
        return "mixed_bfloat16" if cpu_has_bfloat16() else "float32"
    capability = _compute_capability()
    if capability >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if capability >= (7, 0) else "float32"


def _compute_capability() -> tuple[int, int]:
    """Of the weakest visible GPU; (0, 0) where there is none or it does not say."""
    details = [
        tf.config.experimental.get_device_details(gpu)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return min((item.get("compute_capability", (0, 0)) for item in details), default=(0, 0))


def set_precision(policy: str) -> None:
    """Make every model built from now on compute under this Keras policy."""
    keras.config.set_dtype_policy(policy)


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build models under a policy, then return to the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def has_gpu() -> bool:
    """Whether this process has a GPU to train on."""
    return bool(tf.config.list_physical_devices("GPU"))


def share_gpus() -> None:
    """Let TensorFlow take GPU memory as it needs it, not the whole card: others train there too."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def limit_threads(count: int) -> None:
    """Let TensorFlow use `count` threads in an operation and as many operations at once.

    A process can be told once, before it first computes; the same number again is accepted.

    Raises:
        RuntimeError: TensorFlow already runs with another number.
    """
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() != count:
        threading.set_intra_op_parallelism_threads(count)
    if threading.get_inter_op_parallelism_threads() != count:
        threading.set_inter_op_parallelism_threads(count)
