"""One complete Keras model on raw pixels to pass on, of one trained core or of several that vote.

Nothing in it needs our code. It resizes, rounds to whole pixel values as the data
pipeline does, preprocesses, and turns logits into probabilities: of several cores, the mean of
theirs. float32 under every policy, no augmentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from pawtune.models.backbones.backbone_graph import cut_by_share, find_block_ends, split_at
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import preprocess
from pawtune.models.backbones.taps import Tap, Taps, choose_taps, tap_tensors
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import family_of
from pawtune.models.model_spec import ModelSpec, Resizing
from pawtune.models.precision import precision
from pawtune.models.raw_pixels import raw_input, resized


@dataclass(frozen=True)
class Trained:
    """A trained core and what it was built from."""

    spec: ModelSpec
    core: keras.Model


def compose_complete(
    spec: ModelSpec,
    num_classes: int,
    core: keras.Model,
    backbones: Mapping[Backbone, keras.Model] | None = None,
    *,
    temperature: float = 1.0,
    resizing: Resizing = "bilinear",
) -> keras.Model:
    """The complete model of one core.

    Args:
        spec: specification that `core` was built from.
        num_classes: number of classes that `core` was built with.
        core: the trained part, from the family's `build_core`; its weights are copied.
        backbones: networks that the family's `needs` names, from `load_backbone`.
        temperature: divisor of the logits, see `out_of_fold.calibration`.
        resizing: how training images were resized, see `raw_pixels.resized`.

    Returns:
        (N, None, None, 3) pixels → (N, num_classes) probabilities, float32.

    Raises:
        ValueError: a backbone is missing.
    """
    with precision("float32"):
        graph = _Graph(backbones or {}, resizing)
        logits = _logits(Trained(spec, core), num_classes, graph)
        if temperature != 1:
            logits = keras.layers.Rescaling(1 / temperature, name="calibration")(logits)
        probabilities = keras.layers.Softmax(name="probabilities")(logits)
        return keras.Model(graph.raw, probabilities, name="pawtune")


def compose_inputs(
    spec: ModelSpec,
    backbones: Mapping[Backbone, keras.Model] | None = None,
    *,
    resizing: Resizing = "bilinear",
) -> keras.Model:
    """The part of a complete model below its core.

    Args:
        spec: specification that the core is built from.
        backbones: networks that the family's `needs` names, from `load_backbone`.
        resizing: how training images were resized, see `raw_pixels.resized`.

    Returns:
        (N, None, None, 3) pixels → (N, …) what the core takes, float32.
    """
    with precision("float32"):
        graph = _Graph(backbones or {}, resizing)
        return keras.Model(graph.raw, family_of(spec).inputs(spec, graph), name="below")


def compose_vote(
    voters: Sequence[Trained],
    num_classes: int,
    backbones: Mapping[Backbone, keras.Model],
    *,
    temperature: float = 1.0,
    resizing: Resizing = "bilinear",
) -> keras.Model:
    """The complete model of a soft vote: the mean of several cores' probabilities.

    A backbone that several heads share is computed once for all of them: three heads on
    MobileNetV2 cost hardly more than one.

    Args:
        voters: two or more.
        num_classes: number of classes that the cores were built with.
        backbones: networks that all voters need, from `load_backbone`.
        temperature: divisor of the logarithm of the mean, see `out_of_fold.calibration`.
        resizing: how training images were resized, see `raw_pixels.resized`.

    Returns:
        (N, None, None, 3) pixels → (N, num_classes) probabilities, float32.

    Raises:
        ValueError: fewer than two voters, or a backbone is missing.
    """
    if len(voters) < 2:
        raise ValueError(f"a vote needs two models or more, received {len(voters)}")
    with precision("float32"):
        graph = _Graph(backbones, resizing)
        votes = [
            keras.layers.Softmax(name=f"vote_{number}")(
                _logits(voter, num_classes, graph, name=f"voter_{number}")
            )
            for number, voter in enumerate(voters, start=1)
        ]
        mean = keras.layers.Average(name="vote")(votes)
        logits = keras.layers.Rescaling(1 / temperature, name="calibration")(keras.ops.log(mean))
        probabilities = keras.layers.Softmax(name="probabilities")(logits)
        return keras.Model(graph.raw, probabilities, name="pawtune")


def _logits(
    trained: Trained, num_classes: int, graph: _Graph, name: str | None = None
) -> keras.KerasTensor:
    family, spec = family_of(trained.spec), trained.spec
    core = family.build_core(spec, num_classes, graph.backbones, plain=True)
    core.set_weights(trained.core.get_weights())
    inputs = family.inputs(spec, graph)
    if name is None:
        return _named_features(core, inputs)
    # The same layers under a name of their own: Keras saves by name.
    return keras.Model(core.input, core.output, name=name)(inputs, training=False)


def _named_features(core: keras.Model, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Logits; what the dense layers at the end take passes through a layer called `features`."""
    tail: list[keras.Layer] = []
    for layer in reversed(core.layers):
        follows = core.output if not tail else tail[0].input
        if not isinstance(layer, keras.layers.Dense | keras.layers.Dropout):
            break
        if layer.output is not follows:
            break
        tail.insert(0, layer)
    if not tail:
        return core(inputs, training=False)
    x = inputs
    if tail[0].input is not core.input:
        below = keras.Model(core.input, tail[0].input, name=f"{core.name}_below")
        x = below(inputs, training=False)
    x = keras.layers.Activation("linear", name="features")(x)
    for layer in tail:
        x = x if isinstance(layer, keras.layers.Dropout) else layer(x)
    return x


class _Graph:
    """A `PixelGraph`: every size and every backbone is computed once.

    Attributes:
        raw: (N, None, None, 3) pixels pixels.
        backbones: the networks that were given.
    """

    def __init__(self, backbones: Mapping[Backbone, keras.Model], resizing: Resizing) -> None:
        self.raw = raw_input()
        self._resizing = resizing
        self.backbones = backbones
        self._pixels: dict[int, keras.KerasTensor] = {}
        self._maps: dict[Backbone, keras.KerasTensor] = {}
        self._taps: dict[Backbone, dict[Tap, keras.KerasTensor]] = {}
        self._cuts: dict[tuple[Backbone, int], keras.KerasTensor] = {}

    def pixels(self, image_size: int) -> keras.KerasTensor:
        """(N, S, S, 3) float32 pixels 0..255, resized as in training."""
        if image_size not in self._pixels:
            self._pixels[image_size] = resized(self.raw, image_size, self._resizing)
        return self._pixels[image_size]

    def maps(self, backbone: Backbone) -> keras.KerasTensor:
        """(N, h, w, F) feature maps of a frozen backbone."""
        if backbone not in self._maps:
            self._maps[backbone] = self._apply("maps", backbone, self.backbones[backbone])
        return self._maps[backbone]

    def activations(self, backbone: Backbone, share_above: float) -> keras.KerasTensor:
        """(N, h, w, c) activations at a cut of a frozen backbone."""
        folded = fold_backbone(self.backbones[backbone])
        cut = cut_by_share(find_block_ends(folded), share_above).number
        if (backbone, cut) not in self._cuts:
            below, _ = split_at(folded, cut)
            self._cuts[backbone, cut] = self._apply(f"below_{cut}", backbone, below)
        return self._cuts[backbone, cut]

    def taps(self, backbone: Backbone, taps: Taps) -> keras.KerasTensor:
        """(N, F) features of a frozen backbone, see `choose_taps`."""
        if backbone not in self._taps:
            folded = fold_backbone(self.backbones[backbone])
            tensors = tap_tensors(folded)
            tapped = keras.Model(folded.input, list(tensors.values()), name="taps")
            features = self._apply("taps", backbone, tapped)
            self._taps[backbone] = dict(zip(tensors, features, strict=True))
        ends = find_block_ends(self.backbones[backbone])
        chosen = [self._taps[backbone][tap] for tap in choose_taps(taps, ends)]
        return chosen[0] if len(chosen) == 1 else keras.layers.Concatenate()(chosen)

    def _apply(self, part: str, backbone: Backbone, network: keras.Model) -> keras.KerasTensor:
        """A part of a backbone, or all of it, on preprocessed pixels of its size."""
        name, size = backbone
        inputs = keras.Input((size, size, 3), name="pixels")
        outputs = network(preprocess(name, inputs), training=False)
        # A model of its own, so that names inside cannot clash.
        extractor = keras.Model(inputs, outputs, name=f"{part}_{name}_{size}")
        return extractor(self.pixels(size), training=False)
