"""Sets of labels that hold the true one as often as asked for: split conformal prediction.

A label is in the set where its probability is at least a threshold: that of the true labels of
images the model has not seen, at rank ⌈(n + 1) · coverage⌉ from the highest. Source: Sadinle, Lei
and Wasserman, Least ambiguous set-valued classifiers with bounded error levels, Journal of the
American Statistical Association 114 (2019), https://doi.org/10.1080/01621459.2017.1395341. A set
may be empty: with the likeliest label always in it, coverage would never be below the model's
accuracy, whatever was asked for. Plain numpy.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.models.errors import ModelError


def set_threshold(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], coverage: float
) -> float:
    """The least probability of a label in the set.

    Args:
        probabilities: (N, C) for images that the model has not seen.
        labels: (N,) true classes.
        coverage: Coverage of the sets, between 0 and 1, on images like these.

    Raises:
        ModelError: Fewer images than this coverage needs.
    """
    images = len(labels)
    rank = int(np.ceil((images + 1) * coverage - 1e-9))
    if rank > images:
        needed = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        raise ModelError(
            f"label sets of coverage {coverage:g} need {needed} validation images or more, "
            f"received {images}; ask for a lower coverage"
        )
    own = np.sort(probabilities[np.arange(images), labels])[::-1]
    return float(own[rank - 1])


def label_set(probabilities: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.int64]:
    """Classes of one image's (C,) probabilities, the likeliest first; none where none is
    likely enough."""
    order = np.argsort(-probabilities, kind="stable")
    return order[: int(np.sum(probabilities >= threshold))].astype(np.int64)
