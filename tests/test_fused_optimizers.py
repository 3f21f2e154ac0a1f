"""The optimizers of trials: step by step what Keras' own do, with the same variables."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.training.fused_optimizers import FusedAdam, FusedAdamW, NesterovSGD

Make = Callable[[float], keras.optimizers.Optimizer]


def nesterov(rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FusedAdam, keras.optimizers.Adam),
        (FusedAdamW, keras.optimizers.AdamW),
        (NesterovSGD, nesterov),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_steps_equal_those_of_keras(ours: Make, theirs: Make, compiled: bool) -> None:
    """The saved states of earlier versions hold these variables, in this order."""
    pairs = zip(train(ours(0.01), compiled), train(theirs(0.01), compiled), strict=True)
    for value, expected in pairs:
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-6)


def train(optimizer: keras.optimizers.Optimizer, compiled: bool) -> list[np.ndarray]:
    """The weights and the optimizer's variables after 20 steps."""
    weight = keras.Variable(np.ones((5, 3)), dtype="float32")
    bias = keras.Variable(np.ones(3), dtype="float32")
    if isinstance(optimizer, keras.optimizers.AdamW):
        optimizer.exclude_from_weight_decay([bias])
    optimizer.build([weight, bias])

    def step(gradient: tf.Tensor) -> None:
        optimizer.apply([gradient, gradient[0]], [weight, bias])

    apply = tf.function(step) if compiled else step
    for gradient in np.random.default_rng(0).normal(size=(20, 5, 3)).astype("float32"):
        apply(tf.constant(gradient))
    return [np.asarray(value) for value in (weight, bias, *optimizer.variables)]


def test_the_learning_rate_may_change() -> None:
    weight = keras.Variable(np.zeros(3), dtype="float32")
    optimizer = FusedAdam(1.0)
    optimizer.build([weight])
    optimizer.learning_rate = 0.25
    optimizer.apply([tf.ones(3)], [weight])
    np.testing.assert_allclose(weight, -0.25, rtol=1e-5)
