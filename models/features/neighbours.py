"""Images that are close in features: copies that hashes of pixels miss, and images like no other.

Features are standardised and scaled to length 1; the distance of two images is 1 less the cosine,
from 0 to 2. Plain numpy, in blocks: 3,000 images take a second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]
_BLOCK = 1024
COPY_RATIO = 0.6
COPY_DISTANCE = 0.5
OUTLIER_DEVIATIONS = 5.0  # above the median distance, in standard deviations


@dataclass(frozen=True)
class Neighbours:
    """The K nearest of each of N images among M others, the nearest first.

    Attributes:
        rows: (N, K) int64, which.
        distances: (N, K) float32.
    """

    rows: Rows
    distances: NDArray[np.float32]


@dataclass(frozen=True)
class UnitScale:
    """What makes features comparable, taken from the images that a search trains on.

    Attributes:
        mean: (D,) float32.
        scale: (D,) float32, the standard deviation; 1 where a feature is constant.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, features: Features) -> "UnitScale":
        """That of (N, D) features."""
        wide = features.astype(np.float32)
        scale = wide.std(axis=0)
        return cls(wide.mean(axis=0), np.where(scale > 1e-6, scale, 1).astype(np.float32))

    def apply(self, features: Features) -> NDArray[np.float32]:
        """(N, D) rows of length 1."""
        units = (features.astype(np.float32) - self.mean) / self.scale
        norms = np.linalg.norm(units, axis=1, keepdims=True)
        result: NDArray[np.float32] = units / np.maximum(norms, 1e-12)
        return result


def nearest(
    queries: NDArray[np.float32], units: NDArray[np.float32], k: int, *, themselves: bool = False
) -> Neighbours:
    """The nearest among other images.

    Args:
        queries: (N, D) of `UnitScale.apply`.
        units: (M, D) of the same, M above k.
        k: How many.
        themselves: `queries` are `units`: no image is its own neighbour.
    """
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _BLOCK):
        near = queries[start : start + _BLOCK] @ units.T
        if themselves:
            own = np.arange(len(near))
            near[own, start + own] = -np.inf
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(near, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        part = slice(start, start + len(near))
        rows[part] = np.take_along_axis(best, order, axis=1)
        distances[part] = 1 - np.take_along_axis(values, order, axis=1)
    return Neighbours(rows, distances)


def find_copies(near: Neighbours) -> list[tuple[int, int, float]]:
    """Pairs of images that are far closer than images are thereabouts, the closest first.

    Args:
        near: Neighbours of all images among themselves; the last one's distance is the measure.

    Returns:
        (row, row, distance) of each pair, the lower row first.
    """
    pairs: dict[tuple[int, int], float] = {}
    limits = np.minimum(COPY_RATIO * near.distances[:, -1], COPY_DISTANCE)
    for row, place in zip(*np.nonzero(near.distances <= limits[:, None]), strict=True):
        other = int(near.rows[row, place])
        pairs[min(int(row), other), max(int(row), other)] = float(near.distances[row, place])
    return sorted(((a, b, d) for (a, b), d in pairs.items()), key=lambda pair: pair[2])


def find_outliers(near: Neighbours) -> Rows:
    """Images whose mean distance to their neighbours is far above the median, the farthest first.

    Args:
        near: Neighbours of all images among themselves.
    """
    mean = near.distances.mean(axis=1)
    middle = np.median(mean)
    # 1.4826 median absolute deviations are a standard deviation of a normal distribution.
    spread = 1.4826 * np.median(np.abs(mean - middle))
    found = np.flatnonzero(mean > middle + OUTLIER_DEVIATIONS * max(spread, 1e-9))
    return found[np.argsort(-mean[found], kind="stable")].astype(np.int64)
