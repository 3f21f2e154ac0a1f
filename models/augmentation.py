"""Augmentation during training, as Keras layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import pi
from typing import cast

import keras
import tensorflow as tf

from pawtune.models.features.view_rendering import render_views
from pawtune.models.model_spec import Flip, ModelSpec, PixelNetSpec
from pawtune.models.precision import has_gpu


def augmentation_layers(spec: ModelSpec, seed: int) -> list[keras.layers.Layer]:
    """Layers that augment pixels in training and pass them through otherwise.

    They draw what Keras' `RandomFlip`, `RandomRotation`, `RandomZoom` (one factor for both axes),
    `RandomTranslation`, `RandomBrightness` and `RandomContrast` draw, and compute in float32 under
    every precision policy: in bfloat16 the places of pixels would be off by up to half a pixel.

    Args:
        spec: flips, rotations and, for a `PixelNetSpec`, the rest. What comes in from outside of
            an image is the image reflected; interpolation is bilinear.
        seed: the layers' random numbers derive from it.

    Returns:
        Layers (N, S, S, 3) float32 → (N, S, S, 3) float32, to be applied in order.
    """
    pixel = spec if isinstance(spec, PixelNetSpec) else PixelNetSpec(family=spec.family)
    layers: list[keras.layers.Layer] = []
    if spec.rotation_factor > 0 or pixel.zoom_factor > 0 or pixel.shift_factor > 0:
        factors = (spec.rotation_factor, pixel.zoom_factor, pixel.shift_factor)
        layers.append(RandomView(spec.flip, *factors, seed))
    elif spec.flip != "none":
        layers.append(keras.layers.RandomFlip(spec.flip, seed=seed, dtype="float32", name="flip"))
    if pixel.brightness_factor > 0:
        layers.append(
            keras.layers.RandomBrightness(
                pixel.brightness_factor, seed=seed + 1, dtype="float32", name="brightness"
            )
        )
    if pixel.contrast_factor > 0:
        layers.append(
            keras.layers.RandomContrast(
                pixel.contrast_factor, seed=seed + 2, dtype="float32", name="contrast"
            )
        )
    return layers


class RandomView(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Flip, rotation, zoom and shift in one pass over the pixels.

    Flips and rotations cost 0.3 ms an image of 160 px on one core instead of Keras' 1.6 ms, which
    was a quarter of a training step in bfloat16.
    """

    def __init__(
        self, flip: Flip, rotation_factor: float, zoom_factor: float, shift_factor: float, seed: int
    ) -> None:
        super().__init__(dtype="float32", name="view")
        self.flip = flip
        self.rotation_factor = rotation_factor
        self.zoom_factor = zoom_factor
        self.shift_factor = shift_factor
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw(self, count: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
        """Angles (count,) in radians and whether an image is mirrored, (count,) bool."""
        limit = 2 * pi * self.rotation_factor
        angles = self._uniform((count,), limit)
        coins = keras.random.uniform((count,), seed=self.seed_generator) <= 0.5
        if self.flip == "horizontal":
            return angles, coins
        if self.flip == "horizontal_and_vertical":
            # Keras (3.15) draws one coin for both axes: that is half a turn.
            angles = tf.where(coins, angles + pi, angles)
        return angles, tf.zeros_like(coins)

    def draw_frames(self, count: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
        """Sizes (count,) of the part that is seen and its shifts (count, 2), over the image's."""
        # Without them nothing is drawn: earlier runs stay reproducible.
        sizes, shifts = tf.ones((count,)), tf.zeros((count, 2))
        if self.zoom_factor > 0:
            sizes += self._uniform((count,), self.zoom_factor)
        if self.shift_factor > 0:
            shifts = self._uniform((count, 2), self.shift_factor)
        return sizes, shifts

    def _uniform(self, shape: tuple[tf.Tensor | int, ...], limit: float) -> tf.Tensor:
        return keras.random.uniform(shape, -limit, limit, seed=self.seed_generator)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Another view of each image, in training; else the images."""
        if not training:
            return images
        shape = tf.shape(images)
        angles, mirrored = self.draw(shape[0])
        sizes, shifts = self.draw_frames(shape[0])
        side = tf.cast(shape[1], "float32")
        transforms = frame_transforms(angles, mirrored, sizes, shifts * side, side - 1)
        views = _renderer()(images, transforms[:, None])[:, 0]
        return tf.ensure_shape(views, images.shape)


def frame_transforms(
    angles: tf.Tensor, mirrored: tf.Tensor, sizes: tf.Tensor, shifts: tf.Tensor, last: tf.Tensor
) -> tf.Tensor:
    """(N, 6) for `render_views`: images mirrored, rotated and scaled about their middle, shifted.

    Args:
        angles: (N,) radians.
        mirrored: (N,) bool.
        sizes: (N,) of the part that is seen, over the image's.
        shifts: (N, 2) pixels, across and down.
        last: index of the last pixel of a row.
    """
    cosine, sine = sizes * tf.cos(angles), sizes * tf.sin(angles)
    middle = last / 2
    across = tf.stack([cosine, -sine, middle * (1 - cosine + sine) + shifts[:, 0]], axis=1)
    down = tf.stack([sine, cosine, middle * (1 - sine - cosine) + shifts[:, 1]], axis=1)
    # Reading the mirror image at x is reading the image at `last` - x.
    across = tf.where(mirrored[:, None], tf.stack([0.0, 0.0, last]) - across, across)
    return tf.concat([across, down], axis=1)


@cache
def _renderer() -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """One function for all layers, so that a process compiles it once for each image size."""
    renderer = tf.function(render_views, autograph=False, jit_compile=not has_gpu())
    return cast(Callable[[tf.Tensor, tf.Tensor], tf.Tensor], renderer)
