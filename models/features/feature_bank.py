"""A feature bank: features of a few augmented views of each image, for heads that are trained.

Which views, and how a trial draws among them: `augmented_views`. What makes them: `ViewEncoder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pawtune.models.features.augmented_views import ViewTable


@dataclass(frozen=True)
class FeatureBank:
    """Features of all views of a set of images.

    Attributes:
        average: (N, V, F) float16, features averaged over the places of the feature map.
        maximum: (N, V, F) float16, their maximum.
        table: the views.
    """

    average: NDArray[np.float16]
    maximum: NDArray[np.float16]
    table: ViewTable

    def features(self, pooling: Literal["average", "max"]) -> NDArray[np.float16]:
        """(N, V, F) under a head's pooling; `[:, 0]` are those of the plain images."""
        return self.average if pooling == "average" else self.maximum
