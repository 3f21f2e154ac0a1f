"""Convolutional nets: sizes as the spec counts them, the tutorial's function, seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.families.conv import CONV, ConvSpec, block_sizes
from pawtune.models.precision import precision
from tests.processor import skip_without

SPECS = [
    ConvSpec(image_size=32, filters=(4,)),
    ConvSpec(image_size=40, filters=(4, 8, 6), dense_width=12, scaling="none"),
    ConvSpec(image_size=33, filters=(4, 8), padding="same", batch_norm=True, kernel_size=5),
    ConvSpec(image_size=32, filters=(8, 4), pooling="global_average", kernel_size=1),
]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3)).astype("float32")


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_net_has_the_weights_and_sizes_that_its_spec_counts(spec: ConvSpec) -> None:
    core = CONV.build_core(spec, 3, {})
    assert core.count_params() == CONV.price(spec, 3).weights
    pools = [layer for layer in core.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert tuple(pool.output.shape[1] for pool in pools) == block_sizes(spec)
    assert core.output_shape == (None, 3)


def test_pooling_before_relu_is_the_tutorials_net_in_value_and_gradient() -> None:
    spec = ConvSpec(image_size=40, filters=(8, 6), dense_width=12, dropout=0.0)
    core = CONV.build_core(spec, 2, {}, seed=1)
    tutorial = keras.Sequential(
        [
            keras.Input((40, 40, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    tutorial.set_weights(core.get_weights())
    outcomes = []
    for model in (core, tutorial):
        with tf.GradientTape() as tape:
            logits = model(PIXELS, training=True)
            loss = tf.reduce_mean(logits**2)
        weights = [weight.value for weight in model.trainable_variables]
        outcomes.append([logits, *tape.gradient(loss, weights)])
    for ours, theirs in zip(*outcomes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_batch_norm_stands_between_convolution_and_relu() -> None:
    core = CONV.build_core(SPECS[2], 2, {})
    names = [layer.name for layer in core.layers]
    assert names.index("conv_1") < names.index("norm_1") < names.index("relu_1")


def test_weights_and_dropout_derive_from_the_seed_alone() -> None:
    spec = ConvSpec(image_size=40, filters=(4,), dropout=0.5)
    first, again, other = (CONV.build_core(spec, 2, {}, seed=seed) for seed in (3, 3, 4))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
    )
    np.testing.assert_array_equal(first(PIXELS, training=True), again(PIXELS, training=True))


def test_logits_are_float32_and_close_in_low_precision() -> None:
    skip_without("mixed_bfloat16")
    spec = ConvSpec(image_size=40, filters=(8, 8), dense_width=16)
    exact = CONV.build_core(spec, 2, {})(PIXELS)
    with precision("mixed_bfloat16"):
        core = CONV.build_core(spec, 2, {})
    logits = core(PIXELS)
    assert core.get_layer("conv_1").compute_dtype == "bfloat16"
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, exact, atol=0.03)
