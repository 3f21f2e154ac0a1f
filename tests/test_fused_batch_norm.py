"""Fused batch normalization: the layer that Keras has, in value and gradient; measured averages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.training.fused_batch_norm import BatchNormMeasurement, FusedBatchNormalization
from tests.processor import skip_without

INPUTS = np.random.default_rng(0).normal(3, 2, (4, 6, 5, 3)).astype("float32")


def step(layer: keras.layers.Layer) -> list[np.ndarray]:
    """Outputs and gradients of a training step."""
    layer.build(INPUTS.shape)
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([-1.0, 0.0, 1.0])
    inputs = tf.constant(INPUTS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.cast(layer(inputs, training=True), tf.float32)
        loss = tf.reduce_sum(tf.sin(outputs))
    gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
    return [np.array(array) for array in [outputs, *gradients]]


def test_it_is_keras_layer() -> None:
    ours, theirs = FusedBatchNormalization(), keras.layers.BatchNormalization()
    for mine, keras_own in zip(step(ours), step(theirs), strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-4, atol=1e-5)
    assert [weight.path.split("/")[-1] for weight in ours.weights] == [
        weight.path.split("/")[-1] for weight in theirs.weights
    ]


def test_a_step_is_close_to_keras_under_a_mixed_policy() -> None:
    skip_without("mixed_bfloat16")
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    outputs = step(layer)[0]
    assert layer(INPUTS, training=True).dtype == "bfloat16"
    np.testing.assert_allclose(outputs, step(keras.layers.BatchNormalization())[0], atol=0.03)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("batch_size", [2, 5, 12, 64])
def test_averages_are_those_of_the_batches_by_their_images(batch_size: int, policy: str) -> None:
    """Hand-computed: of the batches' means, and of their variances."""
    skip_without(policy)
    images = np.random.default_rng(1).integers(0, 256, (12, 4, 4, 3)).astype("uint8")
    order = np.random.default_rng(2).permutation(12)
    pixels = keras.Input((4, 4, 3))
    layer = FusedBatchNormalization(dtype=policy)
    core = keras.Model(pixels, layer(pixels))
    layer.moving_mean.assign([5.0, 5.0, 5.0])  # of another epoch: it must leave no trace
    BatchNormMeasurement(core).measure(images, order, batch_size)
    batches = [images[order[n : n + batch_size]] for n in range(0, 12, batch_size)]
    share = [len(batch) / 12 for batch in batches]
    mean = sum(w * b.mean((0, 1, 2)) for w, b in zip(share, batches, strict=True))
    variance = sum(w * b.var((0, 1, 2)) for w, b in zip(share, batches, strict=True))
    # float32 statistics of inputs in bfloat16, which holds pixels of 8 bits exactly.
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)


def test_a_frozen_layer_keeps_its_averages() -> None:
    pixels = keras.Input((6, 5, 3))
    layer = FusedBatchNormalization()
    core = keras.Model(pixels, layer(pixels))
    layer.trainable = False
    BatchNormMeasurement(core).measure(INPUTS.astype("uint8"), np.arange(4), 2)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
    outputs = layer(INPUTS, training=True)
    assert np.asarray(outputs) == pytest.approx(INPUTS / np.sqrt(1.001), rel=1e-5)
