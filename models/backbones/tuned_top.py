"""Backbones whose top is trained with the head: the part above a cut."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from pawtune.models.errors import ModelError


def build_tuned(
    above: keras.Model,
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """The trained part of a fine-tuned model: top of the backbone, average, head.

    Args:
        above: of `split_at`, (N, h, w, c) → (N, H, W, F); its layers become trainable, but for
            batch norms that could not be folded, which stay as in inference.
        kernel: (F, C) of the head that was solved on the average of the last layer.
        bias: (C,) of that head.
        dropout: between average and head.
        seed: of the dropout.

    Returns:
        (N, h, w, c) activations → (N, C) logits, float32 under every policy.

    Raises:
        ModelError: a head of another width.
    """
    width = above.output_shape[-1]
    if kernel.shape[:1] != (width,) or bias.shape != kernel.shape[1:]:
        raise ModelError(
            f"a head takes the {width} features of the last layer, received a kernel "
            f"{kernel.shape} and a bias {bias.shape}: solve it on the last layer's average"
        )
    # Of a model that is trainable, setting it does not reach its layers (TensorFlow's tracking).
    above.trainable = False
    above.trainable = True
    for layer in above.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    inputs = keras.Input(above.input_shape[1:], dtype="float32", name="activations")
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="average")(above(inputs))
    x = keras.layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    head = keras.layers.Dense(len(bias), dtype="float32", name="logits")
    network = keras.Model(inputs, head(x), name="tuned")
    head.set_weights([kernel.astype("float32"), bias.astype("float32")])
    return network
