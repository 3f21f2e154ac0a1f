"""Linear heads solved instead of trained: ridge and logistic regression on features.

Without a hidden layer the problem is convex. Features are decomposed once (`decompose`); in the
basis of their principal directions each regularisation strength is then a division (ridge) or a
small smooth problem (logistic). What comes out is one kernel and one bias for raw features.

Ridge knows its leave-one-out predictions exactly: with hat matrix H the residual without image i
is the residual divided by 1 - H_ii (Allen, The relationship between variable selection and data
augmentation and a method for prediction, Technometrics 16, 1974). The intercept is a constant
feature under the same penalty; without it, centred targets would leak into that formula.
Plain numpy and SciPy: no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize, minimize_scalar

from pawtune.models.errors import ModelError

Array = NDArray[np.float64]
Features = NDArray[np.floating]

# Eigenvalues below this part of the largest are rounding errors.
_RANK_TOLERANCE = 1e-10
# Up to here a standardised copy of the features is made in float64, above in float32.
_DOUBLE_BYTES = 1_000_000_000
_MAX_ITERATIONS = 300
_TOLERANCE = 1e-5  # of the gradient, a mean over images


@dataclass(frozen=True)
class Decomposition:
    """Features of N training and M validation images in R principal directions of D features.

    Standardised features x, divided by √D, are `coordinates` = x @ directions / √D.

    Attributes:
        mean: (D,) weighted mean of the training features.
        scale: (D,) weighted standard deviation, 1 where a feature is constant.
        directions: (D, R) float32, orthonormal.
        variances: (R,) float64, weighted sums of squared coordinates, the largest first.
        coordinates: (N, R) float32.
        val_coordinates: (M, R) float32.
        weights: (N,) float64, weights of the images, 1 on average.
    """

    mean: Array
    scale: Array
    directions: NDArray[np.float32]
    variances: Array
    coordinates: NDArray[np.float32]
    val_coordinates: NDArray[np.float32]
    weights: Array

    def as_arrays(self) -> dict[str, np.ndarray]:
        """By name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Decomposition:
        """The inverse of `as_arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class SolvedHead:
    """A linear head: logits = features @ kernel + bias.

    Attributes:
        kernel: (D, C) float32.
        bias: (C,) float32.
        train_logits: (N, C) float64, of the training images.
        val_logits: (M, C) float64, of the validation images.
        loo_logits: (N, C) float64, of each training image by the head that was solved without it;
            None where no exact formula is known.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    train_logits: Array
    val_logits: Array
    loo_logits: Array | None


def decompose(
    train: Features, validation: Features, weights: NDArray[np.floating] | None = None
) -> Decomposition:
    """Standardises features and finds their principal directions.

    Args:
        train: (N, D), N at least 2.
        validation: (M, D).
        weights: (N,) positive weights of the training images; None: all alike.

    Raises:
        ModelError: Features that are not finite.
    """
    count, width = train.shape
    w = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    w = w * (count / w.sum())
    mean, scale = _moments(train, w)
    dtype = np.float64 if train.size * 8 <= _DOUBLE_BYTES else np.float32
    standard = _standardised(train, mean, scale, dtype)
    rows = standard * np.sqrt(w)[:, None].astype(dtype)
    if count <= width:
        variances, left = eigh(rows @ rows.T, overwrite_a=True)
        variances, left = _kept(variances, left)
        directions = (rows.T @ left) / np.sqrt(variances)
    else:
        variances, directions = eigh(rows.T @ rows, overwrite_a=True)
        variances, directions = _kept(variances, directions)
    root = np.sqrt(width)
    return Decomposition(
        mean=mean,
        scale=scale,
        directions=directions.astype(np.float32),
        variances=variances / width,
        coordinates=(standard @ directions / root).astype(np.float32),
        val_coordinates=(_standardised(validation, mean, scale, dtype) @ directions / root).astype(
            np.float32
        ),
        weights=w,
    )


def _moments(features: Features, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and deviation of each feature, in blocks that need little memory."""
    total = weights.sum()
    mean = np.zeros(features.shape[1])
    square = np.zeros(features.shape[1])
    for start in range(0, len(features), 4096):
        part = np.asarray(features[start : start + 4096], np.float64)
        if not np.isfinite(part).all():
            raise ModelError(
                "features must be finite, received NaN or infinity: the backbone's weights do not "
                "fit it, or float16 is too narrow for it (set speed.precision=float32)"
            )
        w = weights[start : start + 4096, None]
        mean += (w * part).sum(axis=0)
        square += (w * part**2).sum(axis=0)
    mean /= total
    deviation = np.sqrt(np.maximum(square / total - mean**2, 0))
    # Differences that float16 cannot hold are no signal.
    return mean, np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-12), deviation, 1.0)


def _standardised(features: Features, mean: Array, scale: Array, dtype: type) -> np.ndarray:
    standard: np.ndarray = np.asarray(features, dtype)
    standard = standard - mean.astype(dtype)
    standard /= scale.astype(dtype)
    return standard


def _kept(variances: Array, vectors: np.ndarray) -> tuple[Array, np.ndarray]:
    """Eigenvalues that are no rounding errors, the largest first, with their vectors.

    None where all images have the same features: a head then predicts the classes' shares.
    """
    keep = variances > _RANK_TOLERANCE * max(variances[-1], np.finfo(np.float32).tiny)
    return variances[keep][::-1].copy(), vectors[:, keep][:, ::-1]


def solve_ridge(
    decomposition: Decomposition,
    labels: NDArray[np.integer],
    num_classes: int,
    regularisation: float,
) -> SolvedHead:
    """Ridge regression on one-hot targets, with a temperature that makes its scores logits.

    The temperature minimises the log loss of the leave-one-out scores (as Platt scaling does,
    with one number), so it does not move a decision.

    Args:
        decomposition: Of the features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ of Σ wᵢ (yᵢ - f(xᵢ))² + λ ‖β‖², for standardised features over √D.
    """
    z = decomposition.coordinates.astype(np.float64)
    w, targets = decomposition.weights, np.eye(num_classes)[labels]
    shrunk = 1 / (decomposition.variances + regularisation)
    beta = shrunk[:, None] * (z.T @ (w[:, None] * targets))
    intercept = w @ targets / (w.sum() + regularisation)
    scores = z @ beta + intercept
    hat = w * (z**2 @ shrunk + 1 / (w.sum() + regularisation))
    loo = targets - (targets - scores) / np.maximum(1 - hat, 1e-9)[:, None]
    temperature = _fit_temperature(loo, labels, w)
    return _folded(decomposition, temperature * beta, temperature * intercept, temperature * loo)


def _fit_temperature(scores: Array, labels: NDArray[np.integer], weights: Array) -> float:
    def loss(log_temperature: float) -> float:
        logits = np.exp(log_temperature) * scores
        return float(weights @ -_log_softmax(logits)[np.arange(len(labels)), labels])

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 6), method="bounded").x))


def solve_logistic(
    decomposition: Decomposition,
    labels: NDArray[np.integer],
    num_classes: int,
    regularisation: float,
) -> SolvedHead:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS in the principal directions.

    Args:
        decomposition: Of the features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ of Σ wᵢ log loss + λ/2 ‖β‖², for standardised features over √D. The
            intercept has no penalty.
    """
    z = decomposition.coordinates.astype(np.float64)
    w, targets = decomposition.weights, np.eye(num_classes)[labels]
    count, rank = z.shape
    # Steps of the same size in all directions: what a Newton step would scale, at least.
    steps = 1 / np.sqrt(0.25 * decomposition.variances + regularisation)
    scaled = z * steps

    def loss(packed: Array) -> tuple[float, Array]:
        theta = packed.reshape(rank + 1, num_classes)
        logits = scaled @ theta[:rank] + theta[rank]
        log_p = _log_softmax(logits)
        beta = steps[:, None] * theta[:rank]
        value = w @ -(log_p * targets).sum(axis=1) + regularisation / 2 * (beta**2).sum()
        error = w[:, None] * (np.exp(log_p) - targets)
        slope = scaled.T @ error + regularisation * steps[:, None] * beta
        gradient = np.vstack([slope, error.sum(axis=0)])
        return float(value) / count, gradient.ravel() / count

    found = minimize(
        loss,
        np.zeros((rank + 1) * num_classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": _TOLERANCE / count**0.5, "ftol": 1e-10},
    )
    theta = found.x.reshape(rank + 1, num_classes)
    return _folded(decomposition, steps[:, None] * theta[:rank], theta[rank], None)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _folded(
    decomposition: Decomposition, beta: Array, intercept: Array, loo: Array | None
) -> SolvedHead:
    """The head for raw features: standardisation and directions go into kernel and bias."""
    width = len(decomposition.mean)
    kernel = decomposition.directions.astype(np.float64) @ beta / np.sqrt(width)
    kernel /= decomposition.scale[:, None]
    return SolvedHead(
        kernel=kernel.astype(np.float32),
        bias=(intercept - decomposition.mean @ kernel).astype(np.float32),
        train_logits=decomposition.coordinates @ beta + intercept,
        val_logits=decomposition.val_coordinates @ beta + intercept,
        loo_logits=loo,
    )
