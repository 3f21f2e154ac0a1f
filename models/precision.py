"""Precision and threads: what this machine computes best, set before anything is built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import keras
import tensorflow as tf

from pawtune.models.cpu_info import cpu_has_bfloat16
from pawtune.models.keras_settings import apply_settings
from pawtune.models.model_spec import Precision

CONTEXT_MB = 512  # of a process on a GPU, beside what TensorFlow allocates
MIN_LIMIT_MB = 256

apply_settings()


def resolve_precision(precision: Precision, has_gpu: bool) -> str:
    """The Keras policy that a worker trains under.

    `auto` is mixed_bfloat16 on a CPU with AVX512-BF16 or AMX and on a GPU from compute
    capability 8.0 (Ampere), mixed_float16 on a GPU from 7.0 (tensor cores), else float32.

    Args:
        precision: the specification's value; all but `auto` are taken as they are.
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
        for gpu in tf.config.get_visible_devices("GPU")
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
    """Whether this process has a GPU to train on, one that is not hidden from it."""
    return bool(tf.config.get_visible_devices("GPU"))


def share_gpus(share: float | None = None) -> None:
    """Take of the GPUs' memory what is this process's; to be set before it first computes.

    Args:
        share: Part of the GPUs given to this process. 0: none is used, whatever can be seen. A
            part of one: TensorFlow may take that part of its memory, and no more. Else, and where
            the memory is not known, memory is taken as it is needed, not the whole card at once.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if share == 0:
        with suppress(RuntimeError):  # this process has computed before: too late
            tf.config.set_visible_devices([], "GPU")
        return
    for gpu, limit in zip(gpus, memory_limits(len(gpus), share), strict=True):
        if limit is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        elif tf.config.get_logical_device_configuration(gpu) is None:
            part = tf.config.LogicalDeviceConfiguration(memory_limit=limit)
            tf.config.set_logical_device_configuration(gpu, [part])


def memory_limits(count: int, share: float | None) -> list[int | None]:
    """Megabytes that TensorFlow may take of each visible GPU; None: as it needs them.

    Args:
        count: number of visible GPUs.
        share: part of each GPU for this process, see `share_gpus`.
    """
    whole = share is None or share >= 1
    known = [] if whole or not count else gpu_megabytes()
    totals: list[int | None] = [*known[:count], *[None] * (count - len(known))]
    return [
        None if total is None or share is None else memory_limit(total, share) for total in totals
    ]


def gpu_budget_mb() -> int | None:
    """Megabytes that this process may take of its smallest GPU; None where nobody says."""
    gpus = tf.config.get_visible_devices("GPU")
    parts = [tf.config.get_logical_device_configuration(gpu) for gpu in gpus]
    limits = [part[0].memory_limit for part in parts if part and part[0].memory_limit]
    return min([*limits, *(gpu_megabytes() if len(limits) < len(gpus) else [])], default=None)


def memory_limit(total_mb: int, share: float) -> int:
    """Megabytes that TensorFlow may allocate on a GPU of which a process has a share.

    CUDA itself needs some of every process's part: its context and the libraries' code.

    >>> memory_limit(24576, 0.5)
    11776
    """
    return max(MIN_LIMIT_MB, int(total_mb * share) - CONTEXT_MB)


def gpu_megabytes() -> list[int]:
    """Memory of the GPUs that this process sees, in their order; empty where nobody says."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        command.append(f"--id={visible}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return [int(line) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def limit_threads(count: int) -> None:
    """Let TensorFlow use `count` threads in an operation and as many operations at once.

    It can be set once in a process, before it first computes; the same number again is accepted.

    Raises:
        RuntimeError: TensorFlow already runs with another number.
    """
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() != count:
        threading.set_intra_op_parallelism_threads(count)
    if threading.get_inter_op_parallelism_threads() != count:
        threading.set_inter_op_parallelism_threads(count)
