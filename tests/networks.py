"""Networks for tests: of a specification behind its augmentation, and untrained backbones."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from pawtune.models.build import Network, build_network
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import family_of
from pawtune.models.families.transfer import TransferSpec, build_extractor
from pawtune.models.model_spec import ModelSpec


def save_random_backbone(file: Path, image_size: int = 32, *, is_normed: bool = False) -> None:
    """Weights of a MobileNetV2 as its initialisation left them, the same ones every time.

    `is_normed`: with batch norms that have seen noise, else what all but the first blocks give
    vanishes.
    """
    keras.utils.set_random_seed(0)
    side = (image_size, image_size, 3)
    net = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=side)
    if is_normed:
        set_batch_norms(net, np.random.default_rng(0).uniform(-1, 1, (32, *side)))
    net.save_weights(file)


def set_batch_norms(backbone: keras.Model, pixels: np.ndarray) -> None:
    """Have the batch norms of a backbone know (N, S, S, 3) preprocessed pixels."""
    backbone.trainable = True
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    backbone(pixels.astype("float32"), training=True)
    backbone.trainable = False


def network_of(
    spec: ModelSpec,
    num_classes: int,
    *,
    seed: int,
    backbone: keras.Model | None = None,
    with_half: bool = False,
) -> Network:
    """The network of a specification; `backbone` of a transfer specification."""
    core = family_of(spec).build_core(spec, num_classes, keyed(spec, backbone), seed=seed)
    extractor = None
    if isinstance(spec, TransferSpec) and backbone is not None:
        extractor = build_extractor(spec, backbone)
    return build_network(spec, core, extractor, seed=seed, with_half=with_half)


def keyed(spec: ModelSpec, backbone: keras.Model | None) -> dict[Backbone, keras.Model]:
    """The backbone of a specification under the key that its family has for it."""
    if backbone is None:
        return {}
    needs = family_of(spec).needs(spec, 0)
    return {need: backbone for need in needs if isinstance(need, Backbone)}
