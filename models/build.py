"""What families build their Keras models of: augmented networks, dense layers, optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import keras

from pawtune.models.augmentation import augmentation_layers
from pawtune.models.errors import ModelError
from pawtune.models.model_spec import ModelSpec, TrainSpec
from pawtune.models.training.fused_optimizers import (
    FusedAdam,
    FusedAdamW,
    LearningRate,
    NesterovSGD,
    warmup_cosine,
)

WARMUP_SHARE = 0.05  # of all steps of a cosine schedule


@dataclass(frozen=True)
class Network:
    """A model in training on pixels and its parts, which share their layers with it.

    Attributes:
        model: (N, S, S, 3) pixels 0..255 → (N, C) logits; augments first, in training only.
        core: the trained part, all that a checkpoint holds: a net, or a head.
        extractor: (N, S, S, 3) pixels → (N, F) features, frozen; None where the core takes pixels.
        half: `model` on images averaged to half their side; None where none was asked for.
    """

    model: keras.Model
    core: keras.Model
    extractor: keras.Model | None
    half: keras.Model | None = None


def build_network(
    spec: ModelSpec,
    core: keras.Model,
    extractor: keras.Model | None = None,
    *,
    seed: int,
    with_half: bool = False,
) -> Network:
    """A core, and what is frozen below it, behind the augmentation of a specification.

    Args:
        spec: image size and augmentation.
        core: gives logits of pixels, or of the extractor's features.
        extractor: (N, S, S, 3) pixels 0..255 → the core's inputs; None: the core takes pixels.
        seed: augmentation derives from it alone.
        with_half: also for images of half the side.

    Raises:
        ModelError: the core takes no images of half the side, which are asked for.
    """
    inputs = keras.Input((spec.image_size, spec.image_size, 3), name="pixels")
    x = inputs
    # Seeds of augmentation lie far from the core's, which count upwards from `seed`.
    for layer in augmentation_layers(spec, seed + 1000):
        x = layer(x)
    half = None
    if with_half:
        smaller = keras.layers.AveragePooling2D(2)(x)
        half = keras.Model(inputs, _at_side(core, spec.image_size // 2)(smaller))
    if extractor is not None:
        x = extractor(x)
    return Network(keras.Model(inputs, core(x)), core, extractor, half)


def _at_side(core: keras.Model, side: int) -> keras.Model:
    """The same layers, with the same weights, on images of another side."""
    try:
        return keras.models.clone_model(
            core, input_tensors=keras.Input((side, side, 3)), clone_function=lambda layer: layer
        )
    except ValueError as error:
        raise ModelError(
            f"half_size_share needs a net that takes {side} px as well as {core.input_shape[1]}, "
            "received one that does not; give half_size_share 0, or a net of fewer blocks with a "
            "global average"
        ) from error


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


def make_optimizer(train: TrainSpec, num_images: int) -> keras.optimizers.Optimizer:
    """The optimizer of a spec; under mixed_float16 it scales the loss against underflow.

    Args:
        train: how a model is trained.
        num_images: training images: with them goes the number of steps of a schedule.
    """
    rate: LearningRate = train.learning_rate
    if train.schedule == "cosine":
        steps = train.epochs * ceil(num_images / train.batch_size)
        rate = warmup_cosine(rate, steps, round(WARMUP_SHARE * steps))
    optimizer: keras.optimizers.Optimizer
    if train.optimizer == "adam":
        optimizer = FusedAdam(rate)
    elif train.optimizer == "adamw":
        optimizer = FusedAdamW(rate, train.weight_decay)
    else:
        optimizer = NesterovSGD(rate)
    if keras.config.dtype_policy().name == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
