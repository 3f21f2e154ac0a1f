"""A soft vote: several trained models in one, whose probabilities are the mean of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from pawtune.models.families.conv import build_conv_core
from pawtune.models.families.transfer import build_extractor, build_head
from pawtune.models.precision import precision
from pawtune.models.raw_pixels import raw_input, resized
from pawtune.models.spec import ConvSpec, TransferSpec

BackboneKey = tuple[str, int]  # name, image size in pixels


@dataclass(frozen=True)
class Voter:
    """A trained core and what it was built from."""

    spec: ConvSpec | TransferSpec
    core: keras.Model


def compose_vote(
    voters: Sequence[Voter], num_classes: int, backbones: Mapping[BackboneKey, keras.Model]
) -> keras.Model:
    """One complete model on raw pixels, as `compose_complete` makes of a single core.

    A backbone that several heads share is computed once for all of them: three heads on
    MobileNetV2 cost hardly more than one.

    Args:
        voters: two or more.
        num_classes: as the cores were built with.
        backbones: those of the transfer specs, from `load_backbone`.

    Returns:
        (N, None, None, 3) pixels → (N, num_classes) probabilities, float32.

    Raises:
        ValueError: fewer than two voters.
    """
    if len(voters) < 2:
        raise ValueError(f"a vote needs two models or more, received {len(voters)}")
    with precision("float32"):
        raw = raw_input()
        pixels = {size: resized(raw, size) for size in {v.spec.image_size for v in voters}}
        features = {
            key: _extractor(key, backbone)(pixels[key[1]], training=False)
            for key, backbone in backbones.items()
        }
        votes = []
        for number, voter in enumerate(voters, start=1):
            spec = voter.spec
            if isinstance(spec, ConvSpec):
                inputs = pixels[spec.image_size]
                core = build_conv_core(spec, num_classes, seed=0, plain=True)
            else:
                inputs = features[spec.backbone, spec.image_size][spec.pooling]
                core = build_head(spec, num_classes, inputs.shape[-1])
            core.set_weights(voter.core.get_weights())
            # The same layers under a name of their own: Keras saves by name.
            core = keras.Model(core.input, core.output, name=f"voter_{number}")
            softmax = keras.layers.Softmax(name=f"vote_{number}")
            votes.append(softmax(core(inputs, training=False)))
        mean = keras.layers.Average(name="probabilities")(votes)
        return keras.Model(raw, mean, name="pawtune")


def _extractor(key: BackboneKey, backbone: keras.Model) -> keras.Model:
    """(N, S, S, 3) pixels → both poolings of a backbone's features, computed once."""
    name, size = key
    maps = build_extractor(TransferSpec(backbone=name, image_size=size), backbone)
    # The layer before the pooling: a model of its own, so that names inside cannot clash.
    before = maps.layers[-1].input
    pooled = {
        "average": keras.layers.GlobalAveragePooling2D(name="average")(before),
        "max": keras.layers.GlobalMaxPooling2D(name="max")(before),
    }
    return keras.Model(maps.input, pooled, name=f"features_{name}_{size}")
