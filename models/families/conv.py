"""Convolutional nets trained from scratch."""

from __future__ import annotations

import keras

from pawtune.models.spec import ConvSpec
from pawtune.models.training.fused_batch_norm import FusedBatchNormalization


def build_conv_core(
    spec: ConvSpec, num_classes: int, seed: int = 0, *, plain: bool = False
) -> keras.Model:
    """The net of a spec without augmentation, under the current precision policy.

    Args:
        spec: the net.
        num_classes: logits.
        seed: initial weights and dropout derive from it alone, not from Keras' global seed.
        plain: of Keras' own layers only, to be passed on; training is slower.

    Returns:
        (N, S, S, 3) pixels 0..255 → (N, num_classes) logits, float32.
    """
    seeds = iter(range(seed, seed + 100))
    batch_norm = keras.layers.BatchNormalization if plain else FusedBatchNormalization
    inputs = keras.Input((spec.image_size, spec.image_size, 3), name="pixels")
    x = inputs
    if spec.scaling == "minus_one_to_one":
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(x)
    for number, width in enumerate(spec.filters, start=1):
        x = keras.layers.Conv2D(
            width,
            spec.kernel_size,
            padding=spec.padding,
            use_bias=not spec.batch_norm,  # batch norm has its own offset
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
            name=f"conv_{number}",
        )(x)
        if spec.batch_norm:
            x = batch_norm(name=f"norm_{number}")(x)
        # max(relu(x)) = relu(max(x)), in value and gradient: on a quarter of the pixels. In
        # bfloat16 ReLU's gradient before the first pooling took a sixth of a step on a CPU.
        x = keras.layers.MaxPooling2D(2, name=f"pool_{number}")(x)
        x = keras.layers.ReLU(name=f"relu_{number}")(x)
    x = keras.layers.Dropout(spec.dropout, seed=next(seeds), name="dropout")(x)
    if spec.pooling == "flatten":
        x = keras.layers.Flatten(name="flatten")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="global_average")(x)
    outputs = dense_layers(x, spec.dense_width, num_classes, seed=next(seeds))
    return keras.Model(inputs, outputs, name="conv_core")


def dense_layers(
    x: keras.KerasTensor, width: int, num_classes: int, seed: int
) -> keras.KerasTensor:
    """A dense ReLU layer where `width` > 0, then logits in float32 under every policy."""
    if width:
        x = keras.layers.Dense(
            width,
            activation="relu",
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            name="dense",
        )(x)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1),
        dtype="float32",
        name="logits",
    )(x)
