"""Frozen backbones of `keras.applications` and their preprocessing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import keras
import numpy as np

from pawtune.models.backbones.backbone_weights import backbone_name, one_line
from pawtune.models.errors import ModelError
from pawtune.models.precision import precision


def load_backbone(name: str, image_size: int, weights: Path | None) -> keras.Model:
    """A frozen backbone without top and pooling, in float32 under every precision policy.

    Training and feature banks compute with a faster copy, `batch_norm_folding.fold_backbone`.

    Args:
        name: a `keras.applications` model; case does not matter.
        image_size: side of the square input in pixels.
        weights: its file of weights without the top; None leaves them random (for tests).

    Returns:
        (N, S, S, 3) preprocessed pixels → (N, h, w, F) features.

    Raises:
        ModelError: an unknown backbone, images too small for it, or a file that does not fit.
    """
    name = backbone_name(name)
    try:
        with precision("float32"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes that it was not trained at
            backbone = getattr(keras.applications, name)(
                include_top=False, weights=None, input_shape=(image_size, image_size, 3)
            )
    except ValueError as error:
        raise ModelError(
            f"{name} cannot take images of {image_size} px ({one_line(error)}): "
            "give a larger image_size"
        ) from error
    if weights is not None:
        _load_weights(backbone, name, weights)
    backbone.trainable = False
    return cast(keras.Model, backbone)


def _load_weights(backbone: keras.Model, name: str, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each layer that a wrong file lacks
            backbone.load_weights(path)
    except Exception as error:  # h5py and Keras raise a dozen types for a file that is not it
        raise ModelError(
            f"{path} does not hold the weights of {name} without the top ({one_line(error)}): "
            f"give the .h5 file that Keras publishes for {name}, or leave it out"
        ) from error


def preprocess(name: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Pixels 0..255 as the backbone expects them, made of layers that save without code.

    Every `preprocess_input` of Keras is the identity, or scales and shifts each channel,
    some after reversing RGB to BGR. Which, its answer to black and to three colours tells.

    Args:
        name: a `keras.applications` model.
        pixels: (N, H, W, 3) float32.

    Raises:
        ModelError: Keras has no such backbone.
    """
    probes = np.zeros((4, 1, 1, 3), "float32")
    probes[1:, 0, 0] = 255 * np.eye(3)
    answers = _preprocess_input(name)(probes.copy())[:, 0, 0].astype("float64")
    offset, responses = answers[0], (answers[1:] - answers[0]) / 255
    reverses = abs(responses[0, 2]) > 0
    if reverses:
        pixels = keras.ops.flip(pixels, axis=-1)
        responses = responses[::-1]
    scale = np.diag(responses)
    assert np.allclose(responses, np.diag(scale)), f"{name} mixes channels"
    if np.allclose(scale, 1) and not offset.any():
        return pixels
    return _scaling(scale, offset)(pixels)


def _scaling(scale: np.ndarray, offset: np.ndarray) -> keras.layers.Layer:
    """scale * pixels + offset by channel, in float32: bfloat16 cannot tell 1/127.5 from 1/128.

    Rescaling takes one number for all channels as it is, but several by keras.json's idea of where
    the channels are, when it is called: a saved model would fail under channels_first.
    """
    if np.ptp(scale) == 0 and np.ptp(offset) == 0:
        return keras.layers.Rescaling(
            float(scale[0]), float(offset[0]), dtype="float32", name="preprocess"
        )
    return keras.layers.Normalization(
        axis=-1,
        mean=(-offset / scale).tolist(),
        variance=(1 / scale**2).tolist(),
        dtype="float32",
        name="preprocess",
    )


def _preprocess_input(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Keras' own function, from the module that the backbone was defined in."""
    module = getattr(keras.applications, backbone_name(name)).__module__.rpartition(".")[2]
    function = getattr(keras.applications, module).preprocess_input
    return cast(Callable[[np.ndarray], np.ndarray], function)
