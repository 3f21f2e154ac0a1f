"""How far an image lies from the training images, in features of the model itself.

A distance is 1 less the cosine to the nearest training image, standardised, see `neighbours`;
novelty is that distance over a threshold which 5% of validation images exceed. Plain numpy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawtune.models.features.neighbours import Features, UnitScale, nearest

FALSE_ALARMS = 0.05
MOST_IMAGES = 2000
MOST_NUMBERS = 4_000_000  # 16 MB in float32


def images_kept(width: int) -> int:
    """How many training images are kept at most, of features this wide."""
    return max(1, min(MOST_IMAGES, MOST_NUMBERS // width))


@dataclass(frozen=True)
class Novelty:
    """What images are compared with.

    Attributes:
        scale: Scale that makes features comparable.
        units: (M, D) float32, training images on that scale.
        threshold: Distance from which an image is novel, above 0.
    """

    scale: UnitScale
    units: NDArray[np.float32]
    threshold: float

    @classmethod
    def fitted(cls, train: Features, validation: Features) -> "Novelty":
        """From (M, D) features of training and (N, D) of validation images, one or more of each.

        The threshold is the validation distance at rank ⌈(N + 1) · 0.95⌉, at most the largest.
        """
        scale = UnitScale.of(train)
        units = scale.apply(train)
        found = np.sort(nearest(scale.apply(validation), units, 1).distances[:, 0])
        rank = int(np.ceil((len(found) + 1) * (1 - FALSE_ALARMS) - 1e-9))
        return cls(scale, units, max(float(found[min(rank, len(found)) - 1]), 1e-6))

    def score(self, features: Features) -> NDArray[np.float32]:
        """(N,) novelty of (N, D) features: above 1 stands for novel."""
        distances = nearest(self.scale.apply(features), self.units, 1).distances[:, 0]
        result: NDArray[np.float32] = distances / np.float32(self.threshold)
        return result

    def packed(self) -> NDArray[np.float32]:
        """(M + 2, D) float32: mean, scale, units."""
        return np.vstack([self.scale.mean, self.scale.scale, self.units])

    @classmethod
    def unpacked(cls, packed: NDArray[np.float32], threshold: float) -> "Novelty":
        """The reverse of `packed`."""
        return cls(UnitScale(packed[0], packed[1]), packed[2:], threshold)
