"""The cost of a trial's complete model in use: time for one image, and size."""

import time
from statistics import median

import numpy as np

from pawtune.models.families.family import Backbone, TrialData
from pawtune.models.families.table import family_of
from pawtune.models.model_spec import ModelSpec, Resizing

WARM_UP = 5
RUNS = 30


def measure_costs(
    spec: ModelSpec, data: TrialData, resizing: Resizing = "bilinear"
) -> dict[str, float]:
    """Builds the complete model, pixels in and probabilities out, and runs it on single images.

    Weights do not matter to it, so a trial can be judged by its costs from its first epoch on.

    Args:
        spec: Specification of the model.
        data: Gives the number of classes, and frozen backbones.
        resizing: How the complete model resizes images.

    Returns:
        `latency_ms`: median of 30 runs after 5 for warm-up, one image of the side that the model
        is trained at, in float32, on the device and threads that the trial has, beside whatever
        else runs there. `size_mb`: bytes of all weights / 10^6.
    """
    import tensorflow as tf

    from pawtune.models.complete_model import compose_complete
    from pawtune.models.precision import precision

    family = family_of(spec)
    with precision("float32"):
        needs = family.needs(spec, 0)
        backbones = {need: data.load_backbone(need) for need in needs if isinstance(need, Backbone)}
        core = family.build_core(spec, data.num_classes, backbones)
        model = compose_complete(spec, data.num_classes, core, backbones, resizing=resizing)
    side = spec.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype("float32")
    run = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    pixels = tf.constant(image)
    seconds = []
    for _ in range(WARM_UP + RUNS):
        began = time.perf_counter()
        run(pixels).numpy()
        seconds.append(time.perf_counter() - began)
    return {
        "latency_ms": round(1000 * median(seconds[WARM_UP:]), 3),
        "size_mb": round(4 * model.count_params() / 1e6, 3),
    }
