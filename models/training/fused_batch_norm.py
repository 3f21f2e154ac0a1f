"""Keras' batch normalization, with a training step that TensorFlow computes as one operation.

Keras (3.15) writes it as moments, scale and offset, each a pass over the batch in float32, and as
many again for the gradient. On one core with AMX, a step of 32 images through three blocks of
32, 32 and 64 filters at 160 px takes 293 ms instead of 602 in float32, and 163 instead of 553 in
mixed_bfloat16 (`benchmarks/conv_nets.py`). The statistics are float32 under every policy.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
    """Over the channels of (N, H, W, C); same weights, values and moving averages as Keras' own.

    For training only: a model that is passed on has Keras' own layer (`compose_complete`).
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalizes by the batch in training, by the moving averages otherwise."""
        if not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros([0]),  # computed from the batch
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        self._follow(self.moving_mean, mean)
        # The operation gives the sample's variance, n / (n - 1) of what Keras averages.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        self._follow(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _follow(self, average: Any, value: tf.Tensor) -> None:
        average.assign(average * self.momentum + value * (1.0 - self.momentum))
