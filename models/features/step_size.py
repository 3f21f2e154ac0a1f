"""How many images a frozen backbone is given at once: what the device's memory holds, or less."""

from collections.abc import Callable

import tensorflow as tf

from pawtune.models.precision import gpu_budget_mb

CPU_IMAGES = 16  # a step's activations should fit the cache of a core
MAX_IMAGES = 512  # more make a GPU no faster
# Of a pixel's activations that are alive at once. MobileNetV2 expands half the side to 96 channels
# in float32 (96 bytes a pixel) and holds that before and after an operation; ResNet50 has 64 there
# and 256 at a quarter. Where it is too little, `in_steps` halves.
BYTES_PER_PIXEL = 400
UNKNOWN_MB = 4096  # where a GPU does not say how much it has


def images_per_step(image_size: int, has_gpu: bool) -> int:
    """A first guess for `in_steps`: half of this process's part of the GPU, for activations.

    Args:
        image_size: side in pixels.
        has_gpu: whether this process computes on a GPU.
    """
    if not has_gpu:
        return CPU_IMAGES
    budget = (gpu_budget_mb() or UNKNOWN_MB) * 2**20 / 2
    return max(1, min(MAX_IMAGES, int(budget / (BYTES_PER_PIXEL * image_size**2))))


def in_steps(compute: Callable[[slice], None], count: int, step: int) -> int:
    """Calls `compute` for consecutive slices of `count` items.

    Where the device's memory does not hold a step, it is halved and tried again.

    Args:
        compute: function of a slice; it may be called again for one that it has not finished.
        count: items in all.
        step: items at once, from 1.

    Returns:
        The items at once that the device held.

    Raises:
        ResourceExhaustedError: it does not hold a single item.
    """
    start = 0
    while start < count:
        try:
            compute(slice(start, min(start + step, count)))
        except tf.errors.ResourceExhaustedError:
            if step == 1:
                raise
            step //= 2
        else:
            start += step
    return step
