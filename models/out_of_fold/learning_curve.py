"""How accuracy grows with the number of training images: a curve with a band, from one data set.

A ridge head is solved on random parts of the images and scored on those left out. Errors follow
e(n) = a + b n^-c (inverse power law; Figueroa et al., Predicting sample size required for
classification performance, BMC Medical Informatics and Decision Making 12, 2012,
https://doi.org/10.1186/1472-6947-12-8). The band comes from refits: each draws one repetition at
every size, and adds the noise of scoring a new set of images. Plain numpy and SciPy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import least_squares

from pawtune.models.out_of_fold.leave_out import group_members
from pawtune.models.training.solved_heads import Decomposition

Array = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]

SHARES = (0.1, 0.15, 0.2, 0.3, 0.45, 0.65, 0.8)
REPETITIONS = 8
REFITS = 300
BAND = 0.9


@dataclass(frozen=True)
class LearningCurve:
    """Measured accuracies of heads by number of training images.

    Attributes:
        sizes: (S,) numbers of training images, rising.
        hits: (S, R, C) float64, correctly named held-out images by class, of each repetition.
        totals: (S, R, C) float64, held-out images by class.
    """

    sizes: NDArray[np.int64]
    hits: Array
    totals: Array

    @property
    def accuracies(self) -> Array:
        """(S, R), of all classes."""
        found: Array = self.hits.sum(axis=2) / self.totals.sum(axis=2)
        return found

    def recalls(self) -> Array:
        """(S, C) by class, over all repetitions."""
        found: Array = self.hits.sum(axis=1) / np.maximum(self.totals.sum(axis=1), 1)
        return found


@dataclass(frozen=True)
class Forecast:
    """What a number of training images would bring.

    Attributes:
        images: The number.
        accuracy: The curve's.
        band: 90% band of the accuracy on a new set of images, low and high.
    """

    images: int
    accuracy: float
    band: tuple[float, float]


def measure_curve(
    decomposition: Decomposition,
    labels: Labels,
    num_classes: int,
    regularisation: float,
    groups: Labels,
    *,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> LearningCurve:
    """Solves heads on parts of the images, 10% to 80% of them, and scores the rest.

    Args:
        decomposition: Decomposition of the N images' features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ of `solve_ridge`.
        groups: (N,) numbers; images of one group are never apart.
        repetitions: R, at each size.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([max(2 * num_classes, round(share * len(labels))) for share in SHARES])
    shape = (len(sizes), repetitions, num_classes)
    hits, totals = np.zeros(shape), np.zeros(shape)
    members, kernel = group_members(groups), _kernel(decomposition)
    targets = np.eye(num_classes)[labels]
    for repetition in range(repetitions):
        order = np.concatenate([members[place] for place in rng.permutation(len(members))])
        held = order[max(sizes) :]
        # The factor of the largest part holds those of all others, which are its first rows.
        largest = order[: max(sizes)]
        gram = kernel[np.ix_(largest, largest)] + regularisation * np.eye(len(largest))
        factor = cholesky(gram, lower=True, overwrite_a=True)
        halfway = solve_triangular(factor, targets[largest], lower=True)
        for place, size in enumerate(sizes):
            dual = solve_triangular(factor[:size, :size], halfway[:size], lower=True, trans="T")
            scores = kernel[np.ix_(held, order[:size])] @ dual
            right = scores.argmax(axis=1) == labels[held]
            hits[place, repetition] = np.bincount(labels[held], right, num_classes)
            totals[place, repetition] = np.bincount(labels[held], minlength=num_classes)
    return LearningCurve(sizes.astype(np.int64), hits, totals)


def _kernel(decomposition: Decomposition) -> Array:
    """(N, N) inner products of standardised features over D, with the constant feature's 1.

    Ridge in its dual form then costs a small solution for each part: the same head as `solve_ridge`
    but for the scale of the features, which is that of all images.
    """
    z = decomposition.coordinates.astype(np.float64)
    result: Array = z @ z.T + 1
    return result


def forecast(
    curve: LearningCurve, images: list[int], scored_on: int, *, seed: int = 0
) -> list[Forecast]:
    """Accuracy at other numbers of training images.

    Args:
        curve: Measured curve.
        images: The numbers.
        scored_on: How many new images the accuracy would be measured on: the band holds their
            noise. 0: the band is that of the curve alone.
        seed: Seed of the refits.
    """
    rng = np.random.default_rng(seed)
    errors = 1 - curve.accuracies
    at = np.array(images, float)
    middle = _power_law(_fit(curve.sizes, errors.mean(axis=1)), at)
    rows = np.arange(len(curve.sizes))
    drawn = np.empty((REFITS, len(at)))
    for number in range(REFITS):
        picked = errors[rows, rng.integers(0, errors.shape[1], len(rows))]
        drawn[number] = _power_law(_fit(curve.sizes, picked), at)
    drawn += middle - np.median(drawn, axis=0)
    drawn = np.clip(drawn, 0, 1)
    if scored_on:
        drawn = rng.binomial(scored_on, drawn) / scored_on
    low, high = np.quantile(drawn, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    return [
        Forecast(int(n), float(1 - e), (float(1 - top), float(1 - bottom)))
        for n, e, bottom, top in zip(images, middle, low, high, strict=True)
    ]


def _power_law(parameters: Array, sizes: Array) -> Array:
    floor, slope, power = parameters
    result: Array = floor + slope * (sizes / 100) ** -power
    return result


def _fit(sizes: NDArray[np.int64], errors: Array) -> Array:
    """(a, b, c) with a and b at least 0 and c from 0 to 1, larger sizes weighing more."""
    weights = np.sqrt(sizes / sizes.max())
    start = [errors[-1] / 2, max(errors[0] - errors[-1] / 2, 1e-3), 0.5]
    found = least_squares(
        lambda p: weights * (_power_law(p, sizes.astype(float)) - errors),
        start,
        bounds=([0, 0, 0.05], [1, 10, 1.0]),
    )
    result: Array = found.x
    return result
