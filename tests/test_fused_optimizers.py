"""Fused optimizers: step by step what Keras' own do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.training.fused_optimizers import FusedAdam, FusedAdamW


@pytest.mark.parametrize(
    ("fused", "own"),
    [(FusedAdam, keras.optimizers.Adam), (FusedAdamW, keras.optimizers.AdamW)],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_steps_equal_those_of_keras(
    fused: type[keras.optimizers.Optimizer], own: type[keras.optimizers.Optimizer], compiled: bool
) -> None:
    for ours, theirs in zip(train(fused(0.01), compiled), train(own(0.01), compiled), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def train(optimizer: keras.optimizers.Optimizer, compiled: bool) -> list[np.ndarray]:
    """The weight and the optimizer's variables after 20 steps."""
    weight = keras.Variable(np.ones((5, 3)), dtype="float32")
    optimizer.build([weight])

    def step(gradient: tf.Tensor) -> None:
        optimizer.apply([gradient], [weight])

    apply = tf.function(step) if compiled else step
    for gradient in np.random.default_rng(0).normal(size=(20, 5, 3)).astype("float32"):
        apply(tf.constant(gradient))
    return [np.asarray(value) for value in (weight, *optimizer.variables)]


def test_the_learning_rate_may_change() -> None:
    weight = keras.Variable(np.zeros(3), dtype="float32")
    optimizer = FusedAdam(1.0)
    optimizer.build([weight])
    optimizer.learning_rate = 0.25
    optimizer.apply([tf.ones(3)], [weight])
    np.testing.assert_allclose(weight, -0.25, rtol=1e-5)
