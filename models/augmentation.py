"""Flips and rotations during training, as Keras layers."""

from __future__ import annotations

import keras

from models.spec import Flip


def augmentation_layers(flip: Flip, rotation_factor: float, seed: int) -> list[keras.layers.Layer]:
    """Layers that augment pixels in training and pass them through otherwise.

    They compute in float32 under every precision policy: in bfloat16 the coordinates of a
    rotated image would be off by up to half a pixel at 160 px.

    Keras (3.15) draws one coin an image for `horizontal_and_vertical`: an image is flipped
    along both axes or along none.

    Args:
        flip: None, left-right with probability 0.5, or both axes with probability 0.5.
        rotation_factor: angles are uniform in ±2π times this; 0 adds no layer. What rotates
            in from outside is the image reflected, interpolation is bilinear.
        seed: the layers' random numbers derive from it.

    Returns:
        Layers (N, H, W, 3) float32 → (N, H, W, 3) float32, to be applied in order.
    """
    layers: list[keras.layers.Layer] = []
    if flip != "none":
        layers.append(keras.layers.RandomFlip(flip, seed=seed, dtype="float32", name="flip"))
    if rotation_factor > 0:
        layers.append(
            keras.layers.RandomRotation(
                rotation_factor,
                fill_mode="reflect",
                interpolation="bilinear",
                seed=seed + 1,
                dtype="float32",
                name="rotation",
            )
        )
    return layers
