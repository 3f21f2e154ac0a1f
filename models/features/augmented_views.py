"""Which augmented views of an image a feature bank holds, and how a trial draws among them.

A frozen backbone gives the same features for the same pixels in every trial. So a few views
of each image are made once, and every flip mode and rotation factor is served from them by
weighted sampling (importance sampling with a stratified proposal):

- `RandomFlip` then `RandomRotation` of a square image is one of a circle of rotations of the
  image or of its mirror image: flipping both axes is turning by half. A view is therefore
  (mirrored, angle); (flip_h, flip_v, θ) and (not flip_h, not flip_v, θ + π) are the same view.
- Views 0 to 2 are the plain image, its mirror image and the image upside down: they serve
  rotation factor 0 exactly, and view 0 serves validation.
- The other views lie in rings of angles, denser near 0. Their angles within a ring are random
  for each image. The rings' edges are multiples of 0.05 of a turn, so that at such factors a
  ring is wholly inside or wholly outside what a trial may see, and every image has the same
  number of views there: weights are then exact, not just right on average.

Pure numpy: deciding what a bank serves must not cost an import of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.models.errors import ModelError
from pawtune.models.model_spec import Flip
from pawtune.models.random_streams import Stream, random_numbers

TURN = 2 * np.pi
# Effective views of an image at 17: 2.0 to 2.7 at factor 0.05, 4 to 11 from 0.2 on. Accuracy did
# not differ measurably between 14 and 24 views; below 14, factors of the default space drop out.
DEFAULT_NUM_VIEWS = 17
MIN_NUM_VIEWS = 8
MIN_EFFECTIVE_VIEWS = 2.0
# The innermost ring ends here: below, an image may have no view inside the range at all.
MIN_ROTATION_FACTOR = 0.05

# (mirrored, angle in turns) of the views that are not rotated at random.
_STRAIGHT = ((False, 0.0), (True, 0.0), (False, 0.5))
# How a flip mode of Keras 3.15 moves an image before it is rotated, as (mirrored, turned by
# half, probability). It draws one coin for both axes, so two flips are half a turn.
_MOVES: Mapping[Flip, tuple[tuple[bool, bool, float], ...]] = {
    "none": ((False, False, 1.0),),
    "horizontal": ((False, False, 0.5), (True, False, 0.5)),
    "horizontal_and_vertical": ((False, False, 0.5), (False, True, 0.5)),
}
# Edges of rings in turns, the most useful first; n views take as many of them as they can.
# Upright views also serve "turned by half", so they need narrow rings near half a turn too.
_UPRIGHT_EDGES = (0.05, 0.45, 0.1, 0.4, 0.2, 0.3, 0.15, 0.25, 0.35)
_MIRRORED_EDGES = (0.05, 0.1, 0.2, 0.3, 0.15, 0.4, 0.25, 0.35, 0.45)
# Only one of three flip modes draws mirrored views, and for half of its images.
_MIRRORED_SHARE = 0.36
# Steps of the golden ratio: of any number of epochs in a row, the positions are spread evenly.
_GOLDEN_STEP = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Ring:
    """Angles with inner ≤ |angle| < outer, in turns (0 to 0.5), and their number of views."""

    mirrored: bool
    inner: float
    outer: float
    count: int

    @property
    def width(self) -> float:
        """Width of both sides together, in turns."""
        return 2 * (self.outer - self.inner)


@dataclass(frozen=True)
class ViewTable:
    """The views of a bank: the first three not rotated, then those of each ring in turn.

    Attributes:
        angles: (N, V) float32, radians in [-π, π], counter-clockwise as in Keras.
        rings: rings of the views from the fourth on, in their order; none where V is 1.
    """

    angles: NDArray[np.float32]
    rings: tuple[Ring, ...]

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.angles.shape[0])

    @property
    def num_views(self) -> int:
        """V."""
        return int(self.angles.shape[1])

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """(V,) bool: whether a view is of the mirror image (left and right swapped)."""
        rings = [ring.mirrored for ring in self.rings for _ in range(ring.count)]
        return np.array([mirrored for mirrored, _ in _STRAIGHT] + rings)[: self.num_views]

    def rows(self, start: int, stop: int) -> ViewTable:
        """The views of images `start` to `stop` - 1: those of a shard."""
        return ViewTable(self.angles[start:stop], self.rings)


def plan_rings(num_views: int) -> tuple[Ring, ...]:
    """The rings of `num_views` views, three of which are not rotated; upright ones first.

    Raises:
        ModelError: too few views.
    """
    if num_views < MIN_NUM_VIEWS:
        raise ModelError(
            f"a bank needs at least {MIN_NUM_VIEWS} views of an image (or 1, the plain image "
            f"alone), received {num_views}: give {DEFAULT_NUM_VIEWS}, the default"
        )
    rotated = num_views - len(_STRAIGHT)
    mirrored = round(_MIRRORED_SHARE * rotated)
    # Two views in the innermost upright ring: without flips, small factors have no others.
    return (
        *_divide(rotated - mirrored, _UPRIGHT_EDGES, innermost=2, mirrored=False),
        *_divide(mirrored, _MIRRORED_EDGES, innermost=1, mirrored=True),
    )


def _divide(count: int, edges: Sequence[float], innermost: int, mirrored: bool) -> list[Ring]:
    inner_edges = sorted(edges[: count - innermost])
    counts = np.ones(len(inner_edges) + 1, int)
    counts[0] = innermost
    for extra in range(count - counts.sum()):  # more views than rings: the inner ones first
        counts[extra % len(counts)] += 1
    bounds = [0.0, *inner_edges, 0.5]
    return [
        Ring(mirrored, inner, outer, int(n))
        for inner, outer, n in zip(bounds, bounds[1:], counts, strict=False)
    ]


def make_view_table(
    num_images: int, num_views: int = DEFAULT_NUM_VIEWS, seed: int = 0
) -> ViewTable:
    """Draw the views of a bank.

    An image's views depend on the seed and on its index alone: neither on how many images
    follow nor on how they are cut into shards.

    Args:
        num_images: N.
        num_views: V; 1 for the plain images alone (validation).
        seed: seed of the angles.

    Raises:
        ModelError: too few views.
    """
    rings = () if num_views == 1 else plan_rings(num_views)
    offsets = random_numbers(Stream.VIEW_ANGLES, seed).random((num_images, len(rings)))
    columns = [np.full(num_images, angle) for _, angle in _STRAIGHT]
    for ring, offset in zip(rings, offsets.T, strict=True):
        for number in range(ring.count):
            # Systematic: the views of a ring share the offset and are evenly spaced.
            place = 2 * (offset + number) / ring.count - 1
            distance = ring.inner + np.abs(place) * (ring.outer - ring.inner)
            columns.append(np.copysign(distance, place))
    angles = TURN * np.stack(columns, axis=1)[:, :num_views]
    return ViewTable(angles.astype(np.float32), rings)


def view_weights(table: ViewTable, flip: Flip, rotation_factor: float) -> NDArray[np.float64]:
    """How often a trial shows each view of each image.

    Args:
        table: the bank's views.
        flip: the trial's flip mode.
        rotation_factor: Keras' `RandomRotation` factor, 0 to 1; angles are uniform in ±2π
            times it, from 0.5 on around the circle more than once.

    Returns:
        (N, V), every row with sum 1.

    Raises:
        ModelError: the bank holds no such views.
    """
    _check(table.num_views, flip, rotation_factor)
    weights = np.zeros(table.angles.shape)
    for mirrored, turned, probability in _MOVES[flip]:
        if rotation_factor == 0:
            weights[:, _STRAIGHT.index((mirrored, 0.5 * turned))] += probability
        else:
            weights += probability * _move_weights(table, mirrored, turned, rotation_factor)
    return weights


def _move_weights(
    table: ViewTable, mirrored: bool, turned: bool, factor: float
) -> NDArray[np.float64]:
    """(N, V) weights, target density over proposal density, of the angles after one move."""
    # The target density over the distance from the middle of the range, in turns, has one
    # step: where the range ends, or (beyond half a turn) where it begins to overlap itself.
    step = factor if factor <= 0.5 else 1 - factor
    inside, outside = (1, 0) if factor <= 0.5 else (1, 2)
    fixed = np.zeros(table.num_views)
    varying = np.zeros(table.angles.shape)
    column = len(_STRAIGHT)
    for ring in table.rings:
        columns = slice(column, column + ring.count)
        column += ring.count
        if ring.mirrored != mirrored:
            continue
        # Of a whole ring a view stands for an equal part, `share` at density 1 / (2 factor).
        share = ring.width / ring.count / (2 * factor)
        near, far = (0.5 - ring.outer, 0.5 - ring.inner) if turned else (ring.inner, ring.outer)
        if near + 1e-9 < step < far - 1e-9:
            distance = np.abs(table.angles[:, columns]) / TURN
            distance = 0.5 - distance if turned else distance
            varying[:, columns] = share * np.where(distance < step, inside, outside)
        else:
            fixed[columns] = share * (inside if far < step + 1e-9 else outside)
    if not fixed.any():  # few views: an image may have none inside
        raise ModelError(
            f"a bank of {table.num_views} views serves no rotation factor {factor} "
            f"{'upside down' if turned else 'upright'}: give {DEFAULT_NUM_VIEWS} views"
        )
    # In the ring with the step, the weight varies with the angles drawn, and is right on
    # average. The other rings take what is left. Dividing all by their sum instead would
    # favour views of images that have few inside: a KS distance of 0.07 at some factors.
    varying /= np.maximum(varying.sum(1, keepdims=True), 1)
    left = 1 - varying.sum(1, keepdims=True)
    return np.asarray(varying + left * fixed / fixed.sum())


def effective_views(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): 1 / Σ w² of each row of weights, the number of equally used views it amounts to.

    Kish, Survey Sampling (1965), section 11.7.
    """
    return np.asarray(1 / np.square(weights).sum(axis=1))


@lru_cache(maxsize=1024)
def median_effective_views(flip: Flip, rotation_factor: float, num_views: int) -> float:
    """Median number of effective views over images; 0 where the bank holds none that fit."""
    try:
        weights = view_weights(make_view_table(256, num_views), flip, rotation_factor)
    except ModelError:
        return 0.0
    return float(np.median(effective_views(weights)))


def bank_supports(flip: Flip, rotation_factor: float, num_views: int = DEFAULT_NUM_VIEWS) -> bool:
    """Whether a bank of so many views can stand in for live augmentation.

    Without rotation it is exact. With rotation it takes two effective views of an image.
    """
    effective = median_effective_views(flip, rotation_factor, num_views)
    return effective > 0 if rotation_factor == 0 else effective >= MIN_EFFECTIVE_VIEWS


def _check(num_views: int, flip: Flip, rotation_factor: float) -> None:
    if flip not in _MOVES:
        raise ModelError(f"a flip is one of {', '.join(_MOVES)}, received {flip!r}")
    if not 0 <= rotation_factor <= 1:
        raise ModelError(f"a rotation factor is a number from 0 to 1, received {rotation_factor}")
    if num_views == 1 and (flip != "none" or rotation_factor > 0):
        raise ModelError(
            "a bank of plain images alone (num_views 1) serves no augmentation, received "
            f"flip {flip!r}, rotation_factor {rotation_factor}: give {DEFAULT_NUM_VIEWS} views"
        )
    if 0 < rotation_factor < MIN_ROTATION_FACTOR:
        raise ModelError(
            f"a bank serves rotation factors 0 and from {MIN_ROTATION_FACTOR}, received "
            f"{rotation_factor}: train this trial live"
        )


class ViewSampler:
    """The views that a trial shows of each image, epoch by epoch.

    Systematic sampling: an image steps through its cumulated weights from a random start, by
    the golden ratio, so that its views recur as evenly as the weights allow over any number of
    epochs. The starts are stratified over the images, so each epoch as a whole has the right
    mixture too. An epoch depends on seed and epoch alone: a trial can be continued.

        sampler = ViewSampler(bank.table, "horizontal", 0.2, seed=0)
        features = sampler.features_for_epoch(bank.features("average"), epoch=1)
    """

    def __init__(self, table: ViewTable, flip: Flip, rotation_factor: float, seed: int = 0) -> None:
        """Prepare to draw.

        Raises:
            ModelError: the bank holds no such views.
        """
        cumulated = np.cumsum(view_weights(table, flip, rotation_factor), axis=1)
        # The last positive weight must reach exactly 1, whatever the rounding.
        self._cumulated = cumulated / cumulated[:, -1:]
        rng = random_numbers(Stream.VIEW_DRAWS, seed)
        count = table.num_images
        self._starts = (rng.permutation(count) + rng.random(count)) / max(count, 1)

    def views_for_epoch(self, epoch: int) -> NDArray[np.int64]:
        """(N,) int64: the view of each image in this epoch."""
        positions = (self._starts + epoch * _GOLDEN_STEP) % 1
        return np.asarray((self._cumulated <= positions[:, None]).sum(axis=1))

    def features_for_epoch(
        self, features: NDArray[Any], epoch: int, order: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        """The features of this epoch's views, copied out of the bank.

        Args:
            features: (N, V, F), memory-mapped or not.
            epoch: its number.
            order: (M,) the images to take, in this order; all of them by default.

        Returns:
            (M, F) of the bank's dtype.
        """
        images = np.arange(len(self._starts)) if order is None else order
        return np.asarray(features[images, self.views_for_epoch(epoch)[images]])
