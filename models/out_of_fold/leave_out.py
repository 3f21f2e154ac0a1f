"""Logits of images by heads that were solved without them: from one decomposition of all features.

Images of one group (duplicates and near duplicates) are left out together, else a head would have
seen the answer. Ridge needs no second solution: without the images of group G their residuals are
(I - H_GG)⁻¹ r_G, where H is the hat matrix and r the residuals with all images (block form of
Allen's leave-one-out, see `solved_heads`). Plain numpy: no TensorFlow.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.models.training.solved_heads import Decomposition, fit_temperature, one_minus_hat

Array = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]

FOLDS = 5


def leave_out_ridge(
    decomposition: Decomposition,
    labels: Labels,
    num_classes: int,
    regularisation: float,
    groups: Labels | None = None,
) -> Array:
    """Exact logits of each image by the ridge head that was solved without its group.

    Args:
        decomposition: Decomposition of the N images' features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ of `solve_ridge`.
        groups: (N,) numbers, equal where images belong together; None: each stands alone.

    Returns:
        (N, C), times the temperature that minimises their log loss.
    """
    scores = _leave_out_scores(decomposition, labels, num_classes, regularisation, groups)
    temperature = fit_temperature(scores, labels, decomposition.weights)
    return temperature * scores


def _leave_out_scores(
    decomposition: Decomposition,
    labels: Labels,
    num_classes: int,
    regularisation: float,
    groups: Labels | None,
) -> Array:
    z = decomposition.coordinates.astype(np.float64)
    w, targets = decomposition.weights, np.eye(num_classes)[labels]
    shrunk = 1 / (decomposition.variances + regularisation)
    constant = 1 / (w.sum() + regularisation)
    beta = shrunk[:, None] * (z.T @ (w[:, None] * targets))
    residuals = targets - z @ beta - constant * (w @ targets)
    free = one_minus_hat(decomposition, regularisation)
    left_out = residuals / np.maximum(free, 1e-12)[:, None]
    for members in group_members(groups) if groups is not None else ():
        if len(members) == 1:
            continue
        block = (z[members] * shrunk) @ z[members].T + constant
        remaining = np.eye(len(members)) - block * w[members]
        left_out[members] = np.linalg.solve(remaining, residuals[members])
    scores: Array = targets - left_out
    return scores


def group_members(groups: Labels) -> list[NDArray[np.intp]]:
    """Rows of each group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order][:1] - 1))
    return np.split(order, starts[1:])


def deal_folds(labels: Labels, groups: Labels, folds: int = FOLDS, seed: int = 0) -> Labels:
    """A fold for each image: groups whole, classes spread evenly.

    Args:
        labels: (N,) class indices.
        groups: (N,) numbers, equal where images belong together.
        folds: How many, at least 2.
        seed: Seed of the shuffle.

    Returns:
        (N,) int64, 0 to folds - 1.
    """
    rng = np.random.default_rng(seed)
    _, first, place = np.unique(groups, return_index=True, return_inverse=True)
    dealt = np.empty(len(first), np.int64)
    begin = 0
    for label in np.unique(labels[first]):
        members = rng.permutation(np.flatnonzero(labels[first] == label))
        dealt[members] = (begin + np.arange(len(members))) % folds
        begin += len(members)
    return dealt[place]
