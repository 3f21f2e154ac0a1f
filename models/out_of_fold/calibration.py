"""Temperature scaling: one number that makes stated probabilities match the share that is right.

Logits are divided by a temperature T, fitted by log loss on images that the model has not seen.
Labels stay as they are. A weak prior, ln T normal around 0, keeps T finite where every image is
right. Source: Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML
2017, https://arxiv.org/abs/1706.04599. Plain numpy and scipy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # loads scipy.optimize where a temperature is first fitted: 0.3 s
from numpy.typing import NDArray

from pawtune.models.out_of_fold.leave_out import deal_folds

Array = NDArray[np.float64]
Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

PRIOR_DEVIATION = 0.5  # of ln T: a factor of 1.65 either way is within one deviation
LOWEST, HIGHEST = np.exp([-3.0, 3.0])  # temperatures: 0.05 to 20
LEAST_PROBABILITY = 1e-37  # of float32 numbers above 0, about


def choose_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature of the highest posterior density.

    Args:
        probabilities: (N, C) for images that the model has not seen, at temperature 1.
        labels: (N,) true classes.

    Returns:
        T from 0.05 to 20; 1 where there are no images.
    """
    if not len(labels):
        return 1.0
    logits, rows = _log(probabilities), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        log_p = scipy.special.log_softmax(logits * np.exp(-log_temperature), axis=1)
        return float(-log_p[rows, labels].sum()) + log_temperature**2 / (2 * PRIOR_DEVIATION**2)

    return float(
        np.exp(
            scipy.optimize.minimize_scalar(
                loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded"
            ).x
        )
    )


def tempered(probabilities: Probabilities, temperature: float) -> NDArray[np.float32]:
    """(N, C) the same probabilities at another temperature."""
    found: Array = scipy.special.softmax(_log(probabilities) / temperature, axis=1)
    return found.astype(np.float32)


def mean_of_logits(
    probabilities: Sequence[NDArray[np.floating[Any]]],
) -> NDArray[np.float32]:
    """(N, C) probabilities of the mean of logits, from several (N, C) probabilities.

    Logarithms of probabilities are logits up to a number for each image, which softmax removes.
    """
    found: Array = scipy.special.softmax(
        np.mean([_log(each) for each in probabilities], axis=0), axis=1
    )
    return found.astype(np.float32)


def cross_fitted(
    probabilities: Probabilities, labels: Labels, groups: Labels
) -> NDArray[np.float32]:
    """(N, C) probabilities, each at the temperature of the other folds.

    Args:
        probabilities: (N, C) at temperature 1.
        labels: (N,) true classes.
        groups: (N,) numbers, equal where images belong together: these share a fold.
    """
    folds = deal_folds(labels, groups)
    found = np.empty(probabilities.shape, np.float32)
    for fold in np.unique(folds):
        out = folds == fold
        temperature = choose_temperature(probabilities[~out], labels[~out])
        found[out] = tempered(probabilities[out], temperature)
    return found


def _log(probabilities: Probabilities) -> Array:
    return np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
