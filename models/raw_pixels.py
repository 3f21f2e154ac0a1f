"""How a complete model takes images: any size, whole pixel values or floats, 0..255 or 0..1."""

from __future__ import annotations

import keras
from keras import ops


def raw_input() -> keras.KerasTensor:
    """(N, H, W, 3) pixels as float32; Keras casts uint8 on the way in."""
    return keras.Input((None, None, 3), dtype="float32", name="raw_pixels")


def pixel_values(raw: keras.KerasTensor) -> keras.KerasTensor:
    """The same from 0 to 255: a batch of fractions, none above 1, is multiplied by 255.

    uint8 has no fractions and is never scaled, nor are floats from 0 to 255, unless every value
    of the batch is at most 1 and some lie between whole values.
    """
    has_fractions = ops.any(ops.not_equal(raw, ops.round(raw)))
    is_unit = ops.logical_and(has_fractions, ops.less_equal(ops.max(raw), 1.0))
    return ops.multiply(raw, ops.where(is_unit, 255.0, 1.0))


def resized(raw: keras.KerasTensor, image_size: int) -> keras.KerasTensor:
    """Raw pixels of any size as training saw them: 0 to 255, bilinear, rounded to whole values."""
    # Not layers.Resizing: it cuts uint8 off instead of rounding, and a model that begins
    # with it runs in training mode when called without saying training=False.
    size = (image_size, image_size)
    # The format is named, for the model may be loaded where keras.json has channels first.
    small = ops.image.resize(
        pixel_values(raw), size, interpolation="bilinear", data_format="channels_last"
    )
    return ops.round(small)
