"""A frozen model on images, or on one view of each, in one compiled function."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.backbones.frozen_backbone import preprocess
from pawtune.models.errors import ModelError
from pawtune.models.features.step_size import in_steps
from pawtune.models.features.view_rendering import render_views


def preparation_of(backbone: keras.Model, name: str) -> keras.Model:
    """(B, S, S, 3) pixels 0..255 → the same, preprocessed as a backbone of this name takes them."""
    pixels = keras.Input(backbone.input_shape[1:], dtype="float32", name="pixels")
    return keras.Model(pixels, preprocess(name, pixels))


class FrozenPass:
    """Outputs of a model that is not trainable; build it once in a process.

    Attributes:
        image_size: side of the images in pixels.
        images_per_step: images at once; halved where the device's memory does not hold them.
    """

    def __init__(
        self, preparation: keras.Model, frozen: keras.Model, images_per_step: int, has_gpu: bool
    ) -> None:
        """Trace the functions.

        Args:
            preparation: (B, S, S, 3) pixels 0..255 → the same, preprocessed.
            frozen: (B, S, S, 3) → (B, ...); its weights are taken as they are now.
            images_per_step: images at once, as a first guess.
            has_gpu: whether this process computes on a GPU; without one, XLA compiles the
                rendering of views.
        """
        self.image_size = int(frozen.input_shape[1])
        self.images_per_step = images_per_step
        self._output_shape = frozen.output_shape[1:]
        # Constants instead of variables: TensorFlow then casts and lays out the weights once.
        values = [variable.numpy() for variable in frozen.non_trainable_variables]
        largest = np.finfo(np.float16).max
        shape = frozen.input_shape[1:]
        render = tf.function(render_views, autograph=False, jit_compile=not has_gpu)

        def outputs_of(pixels: tf.Tensor) -> tf.Tensor:
            weights = [tf.constant(value) for value in values]
            outputs, _ = frozen.stateless_call([], weights, preparation(pixels), training=False)
            return tf.cast(tf.clip_by_value(outputs, -largest, largest), tf.float16)

        def encode(images: tf.Tensor) -> tf.Tensor:
            return outputs_of(tf.cast(images, tf.float32))

        def encode_views(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
            return outputs_of(tf.ensure_shape(render(images, transforms)[:, 0], (None, *shape)))

        pixels = tf.TensorSpec((None, *shape), tf.uint8)
        views = tf.TensorSpec((None, 1, 6), tf.float32)
        self._encode: Any = tf.function(encode, [pixels], autograph=False)
        self._encode_views: Any = tf.function(encode_views, [pixels, views], autograph=False)

    def __call__(
        self, images: NDArray[np.uint8], transforms: NDArray[np.float32] | None = None
    ) -> NDArray[np.float16]:
        """The model's outputs, (n, ...).

        Args:
            images: (n, S, S, 3) uint8, 0 to 255.
            transforms: (n, 1, 6) float32, see `view_transforms`; None: the plain images.

        Raises:
            ModelError: images of another size, or not as many as transforms.
        """
        side, count = self.image_size, len(images if transforms is None else transforms)
        if images.shape != (count, side, side, 3) or images.dtype != np.uint8:
            raise ModelError(
                f"images must be ({count}, {side}, {side}, 3) uint8, received {images.shape} "
                f"{images.dtype}: decode them at {side} px, and give the views of just these images"
            )
        outputs = np.empty((len(images), *self._output_shape), np.float16)

        def encode(part: slice) -> None:
            if transforms is None:
                outputs[part] = self._encode(images[part]).numpy()
            else:
                outputs[part] = self._encode_views(images[part], transforms[part]).numpy()

        self.images_per_step = in_steps(encode, len(images), self.images_per_step)
        return outputs
