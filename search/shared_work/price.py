"""What shared work will take: seconds and bytes, before any of it is made."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pawtune.models.families.family import Activations, Backbone, PlainFeatures, Request, ViewBank
from pawtune.search.process import load_tensorflow

if TYPE_CHECKING:
    import keras

_PROBE_IMAGES = 16
_PROBE_SIZE = 1024  # images or features, whichever are fewer
HALF = 2  # bytes of a number in float16


@dataclass(frozen=True)
class SharedPart:
    """Work that is done once, when the first trial that needs it asks.

    Attributes:
        name: Name of the work.
        passes: Images that go through (a part of) a backbone; 0: none does.
        seconds: About what they take on all CPUs of this machine, if none is in the cache.
        megabytes: Size of what is kept.
    """

    name: str
    passes: int
    seconds: float
    megabytes: float

    def __str__(self) -> str:
        passes = f"{self.passes:,} passes, " if self.passes else ""
        return f"{self.name}: {passes}about {self.seconds:.0f} s, {self.megabytes:,.1f} MB"


def price_shared_work(
    needs: Iterable[Request],
    weights: Mapping[Backbone, Path],
    num_train: int,
    num_validation: int,
    views: int,
) -> list[SharedPart]:
    """The parts that trials may ask for, each backbone timed on a few images of noise.

    Args:
        needs: Requests of all trials that may be proposed.
        weights: The weights file of each backbone, which is loaded.
        num_train: Training images.
        num_validation: Validation images.
        views: Views of an image in a feature bank.

    Raises:
        ModelError: A file does not hold its backbone's weights.
    """
    parts: list[SharedPart] = []
    of_backbones = sorted(
        (need for need in needs if isinstance(need, PlainFeatures | Activations | ViewBank)),
        key=lambda need: need.backbone,
    )
    for backbone, group in groupby(of_backbones, key=lambda need: need.backbone):
        parts += _parts_of(
            backbone, list(group), weights[backbone], num_train, num_validation, views
        )
    return parts


def _parts_of(
    backbone: Backbone,
    needs: list[PlainFeatures | Activations | ViewBank],
    weights: Path,
    num_train: int,
    num_validation: int,
    views: int,
) -> Iterable[SharedPart]:
    load_tensorflow()  # first: it is quiet, the imports below are not
    from pawtune.models.backbones.backbone_graph import cut_by_share, find_block_ends
    from pawtune.models.backbones.batch_norm_folding import fold_backbone
    from pawtune.models.backbones.frozen_backbone import load_backbone
    from pawtune.models.backbones.taps import choose_taps, tap_arrays

    network = fold_backbone(load_backbone(backbone.name, backbone.image_size, weights))
    ends = find_block_ends(network)
    numbers = sum(tap.width for inside in tap_arrays(ends).values() for tap in inside)
    seconds = _seconds_per_image(network)
    shown = f"{backbone.name} at {backbone.image_size} px"

    def part(name: str, passes: int, share: float, numbers: int) -> SharedPart:
        return SharedPart(name, passes, passes * share * seconds, passes * numbers * HALF / 1e6)

    if any(isinstance(need, PlainFeatures | ViewBank) for need in needs):
        yield part(f"features of {shown}", num_train + num_validation, 1, numbers)
    if any(isinstance(need, PlainFeatures) for need in needs):
        width = sum(tap.width for tap in choose_taps("all_moments", ends))
        yield _decomposition(f"one decomposition of {shown}", num_train, num_validation, width)
    if any(isinstance(need, ViewBank) for need in needs):
        width = 2 * ends[-1].shape[-1]
        yield part(f"feature bank of {shown}", num_train * views, 1, width)
    rounds: dict[int, int] = {}
    for need in needs:
        if isinstance(need, Activations):
            number = cut_by_share(ends, need.share_above).number
            rounds[number] = max(rounds.get(number, 0), need.rounds)
    for end in ends:
        if end.number in rounds:
            passes = num_train * rounds[end.number] + num_validation
            name = f"activations of {shown} after block {end.number}, {rounds[end.number]} views"
            yield part(name, passes, 1 - end.share_above, prod(end.shape))


def _decomposition(name: str, num_train: int, num_validation: int, width: int) -> SharedPart:
    """That of all moments, the largest: a smaller one of noise is timed. Time grows cubically."""
    from pawtune.models.training.solved_heads import decompose

    rank = min(num_train, width)
    share = min(1.0, _PROBE_SIZE / rank)
    rows, columns = max(2, round(share * num_train)), max(1, round(share * width))
    noise = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float16)
    decompose(noise, noise[:1])  # loads its libraries
    start = time.perf_counter()
    decompose(noise, noise[:1])
    seconds = (time.perf_counter() - start) / share**3
    numbers = 2 * num_train * rank + (rank + num_validation) * width
    return SharedPart(name, 0, seconds, 4 * numbers / 1e6)


def _seconds_per_image(network: "keras.Model") -> float:
    import tensorflow as tf

    encode = tf.function(lambda images: network(images, training=False), autograph=False)
    images = tf.random.uniform((_PROBE_IMAGES, *network.input_shape[1:]))
    encode(images)  # traced
    start = time.perf_counter()
    encode(images).numpy()
    return (time.perf_counter() - start) / _PROBE_IMAGES
