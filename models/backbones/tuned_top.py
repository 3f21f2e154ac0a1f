"""Backbones whose top is trained with the head: the part above a cut."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import BlockEnd
from pawtune.models.errors import ModelError


def build_tuned(
    above: keras.Model,
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
    dropout: float = 0.0,
    seed: int = 0,
    *,
    blocks: Sequence[BlockEnd] | None = None,
    mean: NDArray[np.floating] | float = 0.0,
    scale: NDArray[np.floating] | float = 1.0,
) -> keras.Model:
    """The trained part of a fine-tuned model: top of the backbone, averages, head.

    Args:
        above: of `split_at`, (N, h, w, c) → (N, H, W, F); its layers become trainable, but for
            batch norms that could not be folded, which stay as in inference.
        kernel: (F, C) of the head that was solved on these averages, not standardised.
        bias: (C,) of that head.
        dropout: between average and head.
        seed: of the dropout.
        blocks: ends of those blocks above the cut whose averages the head takes too, bottom to
            top; the average of the activations themselves then comes first, and all are
            standardised before the head. None: the last layer's average alone, as it is.
        mean: (F,) of the features, to standardise them.
        scale: (F,) their standard deviations.

    Returns:
        (N, h, w, c) activations → (N, C) logits, float32 under every policy.

    Raises:
        ModelError: a head of another width.
    """
    outputs = [_output(above, end) for end in blocks or ()]
    width = sum(tensor.shape[-1] for tensor in (above.output, *outputs))
    width += 0 if blocks is None else above.input_shape[-1]
    if kernel.shape[:1] != (width,) or bias.shape != kernel.shape[1:]:
        raise ModelError(
            f"a head takes the {width} features of these averages, received a kernel "
            f"{kernel.shape} and a bias {bias.shape}: solve it on them"
        )
    # Of a model that is trainable, setting it does not reach its layers (TensorFlow's tracking).
    above.trainable = False
    above.trainable = True
    for layer in above.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    inputs = keras.Input(above.input_shape[1:], dtype="float32", name="activations")
    if blocks is not None:
        tapped = keras.Model(above.input, [*outputs, above.output], name="above")
        maps = keras.tree.flatten(tapped(inputs))
        x = _standardised_averages([inputs, *maps], mean, scale)
        bias = bias + np.broadcast_to(mean, width) @ kernel
        kernel = kernel * np.broadcast_to(scale, width)[:, None]
    else:
        x = _average(above(inputs), "average")
    x = keras.layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    head = keras.layers.Dense(len(bias), dtype="float32", name="logits")
    network = keras.Model(inputs, head(x), name="tuned")
    head.set_weights([kernel.astype("float32"), bias.astype("float32")])
    return network


def _standardised_averages(
    maps: Sequence[keras.KerasTensor],
    mean: NDArray[np.floating] | float,
    scale: NDArray[np.floating] | float,
) -> keras.KerasTensor:
    """(N, F) averages of maps; one step of AdamW then moves them all alike."""
    averages = [_average(each, f"average_{number}") for number, each in enumerate(maps)]
    x = keras.layers.Concatenate(dtype="float32", name="averages")(averages)
    # A batch norm that is not trained is a standardisation whose numbers are among the weights.
    norm = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, dtype="float32", name="standard"
    )
    x = norm(x)
    norm.set_weights([np.broadcast_to(mean, x.shape[1:]), np.broadcast_to(scale, x.shape[1:]) ** 2])
    return x


def _average(maps: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """(N, C) averages of (N, h, w, C) over all places.

    By a pooling: for the gradient of a mean, as GlobalAveragePooling2D takes it, a GPU puts the
    batch's shape together, and the host waits for it in every step.
    """
    pooled = keras.layers.AveragePooling2D(maps.shape[1:3], dtype="float32", name=name)(maps)
    return keras.layers.Flatten(dtype="float32", name=f"{name}_flat")(pooled)


def _output(above: keras.Model, end: BlockEnd) -> keras.KerasTensor:
    return next(item.output for item in above.operations if item.name == end.layer)
