"""Backbones whose top is trained with the head: the part above a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import BlockEnd, output_of
from pawtune.models.backbones.taps import Tap, average_of, deviation_of
from pawtune.models.errors import ModelError


def build_tuned(
    above: keras.Model,
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
    dropout: float = 0.0,
    seed: int = 0,
    *,
    ends: Sequence[BlockEnd] = (),
    taps: Sequence[Tap] = (),
    mean: NDArray[np.floating] | float = 0.0,
    scale: NDArray[np.floating] | float = 1.0,
) -> keras.Model:
    """The trained part of a fine-tuned model: top of the backbone, features, head.

    Args:
        above: upper part from `split_at`, (N, h, w, c) → (N, H, W, F); its layers train, but for
            batch norms that could not be folded, which stay as in inference.
        kernel: (F, C) of the head that was solved on these features, not standardised.
        bias: (C,) of that head.
        dropout: share of the features that is dropped before the head.
        seed: seed of the dropout.
        ends: ends of the blocks from the cut to the last, bottom to top; the cut is the first.
        taps: the features that the head takes, of these blocks; they are standardised before the
            head where there are several. None: the last layer's average.
        mean: (F,) of the features, to standardise them.
        scale: (F,) their standard deviations.

    Returns:
        (N, h, w, c) activations → (N, C) logits, float32 under every policy.

    Raises:
        ModelError: a head of another width.
    """
    width = sum(tap.width for tap in taps) or above.output_shape[-1]
    if kernel.shape[:1] != (width,) or bias.shape != kernel.shape[1:]:
        raise ModelError(
            f"a head takes the {width} features of these blocks, received a kernel "
            f"{kernel.shape} and a bias {bias.shape}: solve it on them"
        )
    # Of a model that is trainable, setting it does not reach its layers (TensorFlow's tracking).
    above.trainable = False
    above.trainable = True
    for layer in above.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    inputs = keras.Input(above.input_shape[1:], dtype="float32", name="activations")
    if len(taps) > 1:
        cut, *inner, last = ends
        outputs = [*(output_of(above, end) for end in inner), above.output]
        tapped = keras.Model(above.input, outputs, name="above")
        maps = keras.tree.flatten(tapped(inputs))
        by_block = {cut.number: inputs}
        by_block |= {end.number: each for end, each in zip((*inner, last), maps, strict=True)}
        x = _standardised(taps, by_block, mean, scale)
        bias = bias + np.broadcast_to(mean, width) @ kernel
        kernel = kernel * np.broadcast_to(scale, width)[:, None]
    else:
        x = average_of(above(inputs), "average")
    x = keras.layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    head = keras.layers.Dense(len(bias), dtype="float32", name="logits")
    network = keras.Model(inputs, head(x), name="tuned")
    head.set_weights([kernel.astype("float32"), bias.astype("float32")])
    return network


def _standardised(
    taps: Sequence[Tap],
    maps: Mapping[int, keras.KerasTensor],
    mean: NDArray[np.floating] | float,
    scale: NDArray[np.floating] | float,
) -> keras.KerasTensor:
    """(N, F) features of maps, by block number; one step of AdamW then moves them all alike."""
    statistics = {"average": average_of, "deviation": deviation_of}
    features = [
        statistics[tap.statistic](maps[tap.block], f"{tap.statistic}_{number}")
        for number, tap in enumerate(taps)
    ]
    x = keras.layers.Concatenate(dtype="float32", name="averages")(features)
    # A batch norm that is not trained is a standardisation whose numbers are among the weights.
    norm = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, dtype="float32", name="standard"
    )
    x = norm(x)
    norm.set_weights([np.broadcast_to(mean, x.shape[1:]), np.broadcast_to(scale, x.shape[1:]) ** 2])
    return x
