"""Specs to Keras models: one to train, and one complete model to pass on."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from pawtune.models.augmentation import augmentation_layers
from pawtune.models.backbones.backbone_graph import split_at
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.families.conv import build_conv_core
from pawtune.models.families.finetune import build_tuned
from pawtune.models.families.transfer import build_extractor, build_head, preprocess
from pawtune.models.precision import precision
from pawtune.models.raw_pixels import raw_input, resized
from pawtune.models.spec import ConvSpec, TrainSpec, TransferSpec
from pawtune.models.training.fused_optimizers import FusedAdam, FusedAdamW, MomentumSGD


@dataclass(frozen=True)
class Network:
    """A model in training and its parts, which share their layers with it.

    Attributes:
        model: (N, S, S, 3) pixels 0..255 → (N, C) logits; augments first, in training only.
        core: the trained part, all that a checkpoint holds: the conv net, or the head.
        extractor: (N, S, S, 3) pixels → (N, F) features, frozen, with a fast copy of the
            backbone; None for conv.
        backbone: the frozen backbone as it was given; None for conv.
        spec: what it was built from.
    """

    model: keras.Model
    core: keras.Model
    extractor: keras.Model | None
    backbone: keras.Model | None
    spec: ConvSpec | TransferSpec


def build_network(
    spec: ConvSpec | TransferSpec,
    num_classes: int,
    *,
    seed: int,
    backbone: keras.Model | None = None,
) -> Network:
    """The model of a spec, under the current precision policy.

    Args:
        spec: the model.
        num_classes: logits.
        seed: initial weights, dropout and augmentation derive from it alone.
        backbone: of a transfer spec, from `load_backbone`; may be shared between networks.

    Raises:
        ValueError: a transfer spec without a backbone.
    """
    fast = None
    if backbone is not None:
        # 160 px on one core with AMX: 3.2 ms an image instead of 9.2 (13.5 unfolded in
        # bfloat16), and a first epoch that starts 8 s earlier.
        fast = fold_backbone(backbone, keras.config.dtype_policy().name)
    core, extractor = _build_parts(spec, num_classes, fast, seed)
    inputs = keras.Input((spec.image_size, spec.image_size, 3), name="pixels")
    x = inputs
    # Seeds of augmentation lie far from the core's, which count upwards from `seed`.
    for layer in augmentation_layers(spec.flip, spec.rotation_factor, seed + 1000):
        x = layer(x)
    if extractor is not None:
        x = extractor(x)
    return Network(keras.Model(inputs, core(x)), core, extractor, backbone, spec)


def _build_parts(
    spec: ConvSpec | TransferSpec,
    num_classes: int,
    backbone: keras.Model | None,
    seed: int,
    *,
    plain: bool = False,
) -> tuple[keras.Model, keras.Model | None]:
    if isinstance(spec, ConvSpec):
        return build_conv_core(spec, num_classes, seed, plain=plain), None
    if backbone is None:
        raise ValueError(f"a transfer model needs its backbone, {spec.backbone}, received None")
    extractor = build_extractor(spec, backbone)
    return build_head(spec, num_classes, extractor.output_shape[-1], seed), extractor


def compose_complete(
    spec: ConvSpec | TransferSpec,
    num_classes: int,
    core: keras.Model,
    backbone: keras.Model | None = None,
) -> keras.Model:
    """One model on raw pixels to save as `.keras` and pass on; nothing in it needs our code.

    It resizes (bilinear), rounds to whole pixel values as the data pipeline does, preprocesses,
    and turns logits into probabilities; float32 under every policy, no augmentation.

    Args:
        spec: what `core` was built from.
        num_classes: as `core` was built with.
        core: the trained conv net or head; its weights are copied.
        backbone: of a transfer spec, from `load_backbone`.

    Returns:
        (N, None, None, 3) pixels → (N, num_classes) probabilities, float32.

    Raises:
        ValueError: a transfer spec without a backbone.
    """
    with precision("float32"):
        trained, extractor = _build_parts(spec, num_classes, backbone, seed=0, plain=True)
        trained.set_weights(core.get_weights())
        raw = raw_input()
        x = resized(raw, spec.image_size)
        if extractor is not None:
            x = extractor(x, training=False)
        logits = trained(x, training=False)
        probabilities = keras.layers.Softmax(name="probabilities")(logits)
        return keras.Model(raw, probabilities, name="pawtune")


def compose_tuned(name: str, backbone: keras.Model, cut: int, network: keras.Model) -> keras.Model:
    """The complete model of a fine-tuned top, as `compose_complete` makes that of a head.

    Args:
        name: of the backbone in `keras.applications`.
        backbone: of `load_backbone`; what is below the cut is taken from it.
        cut: number of the block end.
        network: of `build_tuned`; its weights are copied.

    Returns:
        (N, None, None, 3) pixels → (N, C) probabilities, float32.
    """
    with precision("float32"):
        below, above = split_at(fold_backbone(backbone), cut)
        head = network.get_layer("logits")
        trained = build_tuned(above, *head.get_weights())
        trained.set_weights(network.get_weights())
        raw = raw_input()
        pixels = preprocess(name, resized(raw, backbone.input_shape[1]))
        logits = trained(below(pixels, training=False), training=False)
        probabilities = keras.layers.Softmax(name="probabilities")(logits)
        return keras.Model(raw, probabilities, name="pawtune")


def make_optimizer(train: TrainSpec) -> keras.optimizers.Optimizer:
    """The optimizer of a spec; under mixed_float16 it scales the loss against underflow."""
    optimizer: keras.optimizers.Optimizer
    if train.optimizer == "adam":
        optimizer = FusedAdam(train.learning_rate)
    elif train.optimizer == "adamw":
        optimizer = FusedAdamW(train.learning_rate)
    else:
        optimizer = MomentumSGD(train.learning_rate)
    if keras.config.dtype_policy().name == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
