"""What the processor that runs the tests cannot do."""

from functools import cache

import pytest


def skip_without(policy: str) -> None:
    """Skips a test that computes under a policy for which TensorFlow finds no kernel here.

    It has one for bfloat16 on every processor, unless ONEDNN_MAX_CPU_ISA forbids the
    instructions that oneDNN saw the processor has.
    """
    if policy == "mixed_bfloat16" and not _convolves_in_bfloat16():
        pytest.skip("oneDNN may not use this processor's instructions for bfloat16")


@cache
def _convolves_in_bfloat16() -> bool:
    import tensorflow as tf

    pixels, kernel = tf.ones((1, 8, 8, 4), tf.bfloat16), tf.ones((3, 3, 4, 4), tf.bfloat16)
    try:
        tf.nn.conv2d(pixels, kernel, 1, "SAME")
    except tf.errors.AbortedError:
        return False
    return True
