"""How a complete model takes images: any size, whole pixel values or floats, 0..255 or 0..1."""

from __future__ import annotations

import keras
from keras import ops

from pawtune.models.model_spec import Resizing


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


def resized(
    raw: keras.KerasTensor, image_size: int, resizing: Resizing = "bilinear"
) -> keras.KerasTensor:
    """Raw pixels of any size as training saw them: 0 to 255, resized, rounded to whole values.

    Args:
        raw: (N, H, W, 3).
        image_size: side in pixels of the squares that come out.
        resizing: `bilinear`; `area`: each pixel is the mean of what it covers, along a side that
            shrinks.
    """
    pixels = pixel_values(raw)
    if resizing == "area":
        return ops.round(_by_area(pixels, image_size))
    # Not layers.Resizing: it cuts uint8 off instead of rounding, and a model that begins
    # with it runs in training mode when called without saying training=False.
    size = (image_size, image_size)
    # The format is named, for the model may be loaded where keras.json has channels first.
    small = ops.image.resize(pixels, size, interpolation="bilinear", data_format="channels_last")
    return ops.round(small)


def _by_area(pixels: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """(N, H, W, 3) to (N, size, size, 3), first down, then across."""
    # The operations of tf.image.resize for this have no counterpart in TFLite and ONNX.
    # Sides as vectors of ones, all from the pixels: a constant could not be loaded in safe mode.
    small = ops.image.resize(pixels, (size, size), data_format="channels_last")
    target = ops.ones_like(ops.sum(small, axis=(0, 2, 3)))
    down = _shares(ops.ones_like(ops.sum(pixels, axis=(0, 2, 3))), target, size)
    across = _shares(ops.ones_like(ops.sum(pixels, axis=(0, 1, 3))), target, size)
    channels_first = ops.transpose(pixels, (0, 3, 1, 2))
    rows = ops.matmul(down, channels_first)
    return ops.transpose(ops.matmul(rows, ops.transpose(across)), (0, 2, 3, 1))


def _shares(
    source_ones: keras.KerasTensor, target_ones: keras.KerasTensor, size: int
) -> keras.KerasTensor:
    """What each pixel of a side gives to each of the result's: (S,), (size,) ones to (size, S).

    Where the side shrinks, the part of its width that overlaps, in units of 1/size of a pixel, in
    which all edges are whole numbers; else the weights of bilinear resizing.
    """
    source = ops.sum(source_ones)
    begins = ops.expand_dims(ops.cumsum(source_ones) - 1.0, 0) * float(size)
    ends = begins + float(size)
    number = ops.expand_dims(ops.cumsum(target_ones) - 1.0, 1)
    overlaps = ops.minimum(ends, (number + 1.0) * source) - ops.maximum(begins, number * source)
    averaged = ops.maximum(overlaps, 0.0) / source
    centre = (number + 0.5) * (source / float(size)) - 0.5
    centre = ops.minimum(ops.maximum(centre, 0.0), source - 1.0)
    mixed = ops.maximum(1.0 - ops.absolute(begins / float(size) - centre), 0.0)
    return ops.where(source > float(size), averaged, mixed)
