"""Labels that are probably wrong, found in predictions for images that the model has not seen.

Confident learning: class j is claimed for an image where its probability is at least the mean
probability of j among the images labelled j. Images labelled i that only another class claims are
counted; as many are reported, those with the least margin for their label first. Source: Northcutt,
Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, Journal of
Artificial Intelligence Research 70 (2021) 1373-1411, https://doi.org/10.1613/jair.1.12125
(confident joint, prune by noise rate). Plain numpy.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


def confident_joint(probabilities: Array, labels: Labels) -> NDArray[np.float64]:
    """Estimated numbers of images by given label (rows) and true class (columns).

    Args:
        probabilities: (N, C) of images that the model has not seen.
        labels: (N,) as given.

    Returns:
        (C, C) float64; row i sums to the number of images labelled i.
    """
    classes = probabilities.shape[1]
    claimed = _claimed(probabilities, labels)
    joint = np.zeros((classes, classes))
    certain = claimed >= 0
    np.add.at(joint, (labels[certain], claimed[certain]), 1)
    for label in range(classes):
        images = np.count_nonzero(labels == label)
        if joint[label].sum() == 0:
            joint[label, label] = images
        else:
            joint[label] *= images / joint[label].sum()
    return joint


def _claimed(probabilities: Array, labels: Labels) -> NDArray[np.int64]:
    """(N,) the likeliest class among those above their thresholds; -1: none."""
    classes = probabilities.shape[1]
    thresholds = np.array(
        [
            probabilities[labels == label, label].mean() if (labels == label).any() else np.inf
            for label in range(classes)
        ]
    )
    above = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(above.max(axis=1) >= 0, above.argmax(axis=1), -1)


def find_label_errors(probabilities: Array, labels: Labels) -> NDArray[np.int64]:
    """Images whose label is probably wrong, the most certain first.

    For each pair of classes as many as the confident joint estimates, those that lean most from
    their label to the other class. Only images that the model names otherwise are reported.

    Args:
        probabilities: (N, C) of images that the model has not seen.
        labels: (N,) as given.

    Returns:
        Rows, int64.
    """
    joint = np.round(confident_joint(probabilities, labels)).astype(int)
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    found: set[int] = set()
    for given, true in zip(*np.nonzero(joint), strict=True):
        if given != true:
            images = rows[labels == given]
            lean = probabilities[images, true] - own[images]
            chosen = np.argsort(-lean, kind="stable")[: joint[given, true]]
            found |= set(images[chosen[lean[chosen] > 0]].tolist())
    wrong = np.array(sorted(found), np.int64)
    return wrong[np.argsort(margins(probabilities[wrong], labels[wrong]), kind="stable")]


def margins(probabilities: Array, labels: Labels) -> NDArray[np.float64]:
    """(N,) probability of the label less that of the likeliest other class: -1 to 1."""
    rows = np.arange(len(labels))
    others = np.array(probabilities, np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    result: NDArray[np.float64] = own - others.max(axis=1, initial=-np.inf)
    return result
