"""Fused batch normalization: the layer that Keras has, in value, gradient and moving averages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.training.fused_batch_norm import FusedBatchNormalization

INPUTS = np.random.default_rng(0).normal(3, 2, (4, 6, 5, 3)).astype("float32")


def steps(layer: keras.layers.Layer, count: int = 3) -> list[np.ndarray]:
    """Outputs, gradients and averages after a few training steps, then the outputs at inference."""
    layer.build(INPUTS.shape)
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([-1.0, 0.0, 1.0])
    inputs = tf.constant(INPUTS)
    for _ in range(count):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.cast(layer(inputs, training=True), tf.float32)
            loss = tf.reduce_sum(tf.sin(outputs))
        wanted = [inputs, layer.gamma.value, layer.beta.value]
    gradients = tape.gradient(loss, wanted)
    arrays = [outputs, *gradients, layer.moving_mean, layer.moving_variance]
    return [np.array(array) for array in [*arrays, layer(inputs, training=False)]]


def test_it_is_keras_layer() -> None:
    ours, theirs = steps(FusedBatchNormalization()), steps(keras.layers.BatchNormalization())
    for mine, keras_own in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-4, atol=1e-5)


def test_statistics_are_float32_under_a_mixed_policy() -> None:
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    ours, theirs = steps(layer), steps(keras.layers.BatchNormalization())
    assert layer(INPUTS, training=True).dtype == "bfloat16"
    for mine, keras_own in zip(ours[4:6], theirs[4:6], strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-2)  # of inputs in bfloat16
    np.testing.assert_allclose(ours[0], theirs[0], atol=0.03)


def test_a_frozen_layer_keeps_its_averages() -> None:
    layer = FusedBatchNormalization()
    layer.build(INPUTS.shape)
    layer.trainable = False
    outputs = layer(INPUTS, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
    assert np.asarray(outputs) == pytest.approx(INPUTS / np.sqrt(1.001), rel=1e-5)
