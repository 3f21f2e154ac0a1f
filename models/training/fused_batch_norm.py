"""Keras' batch normalization, trained as one operation, and its averages measured, not followed.

Keras (3.15) writes it as moments, scale and offset, each a pass over the batch in float32, and as
many again for the gradient. On one core with AMX, a step of 32 images through three blocks of
32, 32 and 64 filters at 160 px takes 293 ms instead of 602 in float32, and 163 instead of 553 in
mixed_bfloat16 (`benchmarks/conv_nets.py`). The statistics are float32 under every policy.

Keras' averages follow the batches with a momentum of 0.99. Trials have 5 to 60 steps an epoch:
their averages would still hold the values that they started from, and those of weights long
gone. Here they are measured at the end of an epoch, with its last weights ("precise batch norm":
Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, https://arxiv.org/abs/2105.07576, section
3). Figures: docs/performance.md.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# 64 images did as well as all 600 of an epoch, to 0.005 of accuracy.
MEASURED_IMAGES = 256


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
    """Over the channels of (N, H, W, C); same weights and values as Keras' own.

    In training its averages stay as they are: `BatchNormMeasurement` sets them. For training only:
    a model that is passed on has Keras' own layer (`compose_complete`).
    """

    _batch_share: tf.Tensor | None = None  # while averages are measured

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalizes by the batch in training, by the averages otherwise."""
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
        if self._batch_share is not None:
            # The operation gives the sample's variance, n / (n - 1) of what Keras averages.
            places = np.prod(inputs.shape[1:-1])
            count = tf.cast(tf.shape(inputs)[0], variance.dtype) * places
            for average, value in (
                (self.moving_mean, mean),
                (self.moving_variance, variance * (count - 1) / count),
            ):
                average.assign(average * (1 - self._batch_share) + value * self._batch_share)
        return outputs


class BatchNormMeasurement:
    """Sets the averages of a network's batch norms to what its weights make of some images.

    Args:
        core: (B, S, S, 3) pixels → (B, C); without augmentation, as it is scored.
    """

    def __init__(self, core: keras.Model) -> None:
        self._core = core
        self._layers = [x for x in core.layers if isinstance(x, FusedBatchNormalization)]
        signature = [tf.TensorSpec((None, *core.input_shape[1:]), "uint8"), tf.TensorSpec(())]
        self._add = tf.function(self._add_batch, autograph=False, input_signature=signature)

    def measure(
        self, images: NDArray[np.uint8], order: NDArray[np.integer], batch_size: int
    ) -> None:
        """Averages over batches, each weighted by its images; without batch norms: nothing.

        Args:
            images: (N, S, S, 3).
            order: (M,) indices in random order; the first `MEASURED_IMAGES` are used.
            batch_size: images that are normalized together, as in training.
        """
        if not self._layers:
            return
        done = 0
        while done < min(len(order), MEASURED_IMAGES):
            chosen = order[done : done + batch_size]
            done += len(chosen)
            self._add(images[chosen], len(chosen) / done)

    def _add_batch(self, images: tf.Tensor, share: tf.Tensor) -> None:
        for layer in self._layers:
            layer._batch_share = share
        try:
            self._core(images, training=True)
        finally:
            for layer in self._layers:
                layer._batch_share = None
