"""Tries TensorFlow, its GPU, or Ray, in a process that may crash, and prints what it found as JSON.

python -m pawtune.search.doctor.probe tensorflow
python -m pawtune.search.doctor.probe ray [ADDRESS]
"""

import json
import os
import sys
import time
from typing import Any

BATCH, SIDE, STEPS = 32, 96, 5
HALF = ("mixed_float16", "mixed_bfloat16")


def try_tensorflow() -> dict[str, Any]:
    """Versions, devices, and milliseconds of a training step of a small convolution.

    A GPU is timed with and without half precision: `auto` supposes that half is the faster.
    """
    import tensorflow as tf

    from pawtune.models.precision import has_gpu, resolve_precision, share_gpus

    share_gpus()
    policy = resolve_precision("auto", has_gpu())
    policies = dict.fromkeys(["float32", policy, *(HALF if has_gpu() else ())])
    return {
        "version": tf.__version__,
        "gpus": len(tf.config.get_visible_devices("GPU")),
        "auto": policy,
        "step_ms": {name: round(1e3 * step_seconds(name), 1) for name in policies},
    }


def step_seconds(policy: str) -> float:
    """The shortest of some steps, forward and backward, of two convolutions under a policy.

    Raises:
        FloatingPointError: the result is not finite.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from pawtune.models.precision import precision

    with precision(policy):
        layers = [keras.layers.Conv2D(32, 3, strides=2, activation="relu") for _ in range(2)]
        net = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Flatten()])

    @tf.function  # type: ignore[untyped-decorator]
    def step(images: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(net(images), "float32")))
        return loss, tape.gradient(loss, net.trainable_variables)

    images = tf.constant(np.random.default_rng(0).random((BATCH, SIDE, SIDE, 3), np.float32))
    seconds = []
    for _ in range(STEPS + 1):  # the first also compiles
        began = time.perf_counter()
        loss, gradients = step(images)
        arrays = [np.asarray(loss), *(np.asarray(gradient) for gradient in gradients)]
        seconds.append(time.perf_counter() - began)
    if not all(np.isfinite(array).all() for array in arrays):
        raise FloatingPointError(f"a convolution under {policy} gives what is not finite")
    return min(seconds[1:])


def try_ray(address: str | None) -> dict[str, Any]:
    """Seconds until a worker answers, and what the cluster has."""
    import ray

    from pawtune.search.cluster.connection import available_resources, connect

    began = time.monotonic()
    connect(address)
    answer = ray.get(ray.remote(num_cpus=1)(_process).remote(), timeout=60)
    found = {"capacity": available_resources().text(), "worker": bool(answer)}
    return {**found, "seconds": round(time.monotonic() - began, 1), "version": ray.__version__}


def _process() -> int:
    return os.getpid()


def main() -> None:
    """Runs one probe; a refusal is one line on stderr."""
    what, *rest = sys.argv[1:]
    try:
        found = try_tensorflow() if what == "tensorflow" else try_ray(rest[0] if rest else None)
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
