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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from pawtune.models.errors import ModelError

Array = NDArray[np.float64]
Features = NDArray[np.floating]

# Eigenvalues below this part of the largest are rounding errors of a product in that dtype.
_RANK_TOLERANCE = {np.float64: 1e-10, np.float32: 1e-6}
# Up to here a standardised copy of the features is made in float64, above in float32.
_DOUBLE_BYTES = 250_000_000
# Of L-BFGS. Tighter values move no probability by more than 0.01 (MobileNetV2's features of cats
# and dogs and of flowers17).
_MAX_ITERATIONS = 300
_GRADIENT_TOLERANCE = 3e-7
_LOSS_TOLERANCE = 1e-9
# A typical p (1 - p) of images that are fitted well: the loss's curvature along a direction.
_CURVATURE = 0.02


@dataclass(frozen=True)
class Decomposition:
    """Features of N training and M validation images in R principal directions of D features.

    Standardised features x, divided by √D, are `coordinates` = x @ directions / √D. Where images
    are fewer than features, each direction is a sum over training images, and these are kept
    instead: making the directions of them would take longer than all heads that need them.

    Attributes:
        mean: (D,) weighted mean of the training features.
        scale: (D,) what features are divided by: the weighted standard deviation, 1 where a feature
            is constant; of G groups that weigh alike, times √(the group's width * G / D).
        variances: (R,) float64, weighted sums of squared coordinates, the largest first.
        coordinates: (N, R) float64, or float32 where the features are large.
        weights: (N,) float64, weights of the images, 1 on average.
        val_rows: (M, D) float32, standardised features of the validation images.
        directions: (D, R) float32, orthonormal; None where N is at most D.
        rows: (N, D) float32, standardised features of the training images; None otherwise.
    """

    mean: Array
    scale: Array
    variances: Array
    coordinates: Features
    weights: Array
    val_rows: NDArray[np.float32]
    directions: NDArray[np.float32] | None = None
    rows: NDArray[np.float32] | None = None

    def as_arrays(self) -> dict[str, np.ndarray]:
        """By name, to be stored."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Decomposition:
        """The inverse of `as_arrays`."""
        return cls(**arrays)

    def kernel(self, beta: Array) -> Array:
        """(D, C) float64 kernel for standardised features of one in coordinates, (R, C)."""
        width = len(self.mean)
        if self.directions is not None:
            return np.asarray(_double(self.directions) @ beta / np.sqrt(width))
        assert self.rows is not None
        of_images = self.coordinates @ (beta / self.variances[:, None])
        of_images *= self.weights[:, None] / width
        kernel = np.zeros((width, beta.shape[1]))
        for part in _blocks(self.rows):
            kernel += _double(self.rows[part]).T @ of_images[part]
        return kernel


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
    train: Features,
    validation: Features,
    weights: NDArray[np.floating] | None = None,
    groups: Sequence[int] | None = None,
) -> Decomposition:
    """Standardises features and finds their principal directions.

    Args:
        train: (N, D), N at least 2.
        validation: (M, D).
        weights: (N,) positive weights of the training images; None: all alike.
        groups: widths of groups of neighbouring features that add up to D. Groups then weigh alike
            in the penalty, however many features they have; None: features weigh alike.

    Raises:
        ModelError: Features that are not finite.
    """
    count, width = train.shape
    w = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    w = w * (count / w.sum())
    mean, scale = _moments(train, w)
    if groups is not None:
        scale *= np.sqrt(np.repeat(groups, groups) * len(groups) / width)
    dtype = np.float64 if train.size * 8 <= _DOUBLE_BYTES else np.float32
    rows = _standardised(train, mean, scale, dtype)
    kept = rows.astype(np.float32) if count <= width else None
    rows *= np.sqrt(w)[:, None].astype(dtype)
    directions = None
    if kept is not None:
        variances, left = _principal(rows @ rows.T)
        coordinates = left * np.sqrt(variances)
    else:
        variances, directions = _principal(rows.T @ rows)
        coordinates = rows @ directions
        directions = directions.astype(np.float32, copy=False)
    coordinates /= np.sqrt(w * width)[:, None].astype(dtype)
    return Decomposition(
        mean=mean,
        scale=scale,
        variances=variances / width,
        coordinates=coordinates,
        weights=w,
        val_rows=_standardised(validation, mean, scale, np.float32),
        directions=directions,
        rows=kept,
    )


def _moments(features: Features, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and deviation of each feature, in blocks that need little memory."""
    total = weights.sum()
    mean = np.zeros(features.shape[1])
    square = np.zeros(features.shape[1])
    for rows in _blocks(features):
        part = np.asarray(features[rows], np.float64)
        if not np.isfinite(part).all():
            raise ModelError(
                "features must be finite, received NaN or infinity: the backbone's weights do not "
                "fit it, or float16 is too narrow for it (set speed.precision=float32)"
            )
        mean += weights[rows] @ part
        square += weights[rows] @ part**2
    mean /= total
    deviation = np.sqrt(np.maximum(square / total - mean**2, 0))
    # Differences that float16 cannot hold are no signal.
    return mean, np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-12), deviation, 1.0)


def _standardised(features: Features, mean: Array, scale: Array, dtype: type) -> np.ndarray:
    standard: np.ndarray = np.asarray(features, dtype)
    standard = standard - mean.astype(dtype)
    standard /= scale.astype(dtype)
    return standard


def _principal(gram: np.ndarray) -> tuple[Array, np.ndarray]:
    """Eigenvalues that are no rounding errors, the largest first, with their vectors.

    None where all images have the same features: a head then predicts the classes' shares.
    """
    tolerance = _RANK_TOLERANCE[gram.dtype.type]
    # Divide and conquer: a sixth faster than SciPy's usual way, with twice the memory.
    variances, vectors = eigh(gram, overwrite_a=True, driver="evd")
    keep = variances > tolerance * max(variances[-1], np.finfo(np.float32).tiny)
    return variances[keep][::-1].astype(np.float64), vectors[:, keep][:, ::-1]


def solve_ridge(
    decomposition: Decomposition,
    labels: NDArray[np.integer],
    num_classes: int,
    regularisation: float,
) -> SolvedHead:
    """Ridge regression on one-hot targets, with a temperature that makes its scores logits.

    The temperature minimises the log loss of the leave-one-out scores, so it moves no decision.

    Args:
        decomposition: Decomposition of the features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ > 0 of Σ wᵢ (yᵢ - f(xᵢ))² + λ ‖β‖², for standardised features over √D.

    Raises:
        ModelError: λ is not above 0.
    """
    _check_penalty(regularisation)
    z, w = decomposition.coordinates, decomposition.weights
    targets = np.eye(num_classes)[labels]
    shrunk = 1 / (decomposition.variances + regularisation)
    moments = sum(_double(z[rows]).T @ (w[rows, None] * targets[rows]) for rows in _blocks(z))
    beta = shrunk[:, None] * moments
    intercept = w @ targets / (w.sum() + regularisation)
    scores = _product(z, beta) + intercept
    free = one_minus_hat(decomposition, regularisation)
    loo = targets - (targets - scores) / np.maximum(free, 1e-12)[:, None]
    temperature = fit_temperature(loo, labels, w)
    return _folded(decomposition, temperature * beta, temperature * intercept, temperature * loo)


def _check_penalty(regularisation: float) -> None:
    if not regularisation > 0:
        raise ModelError(f"regularisation must be above 0, received {regularisation}")


def one_minus_hat(decomposition: Decomposition, regularisation: float) -> Array:
    """(N,) 1 - Hᵢᵢ, as a sum of positive terms: 1 minus a hat value near 1 would lose its digits.

    Image i has the part uᵢᵣ² of itself in direction r, wᵢ / Σw in the constant, the rest in none
    of them; λ leaves λ / (variance + λ) of each part to the residual.
    """
    w, s, z = decomposition.weights, decomposition.variances, decomposition.coordinates
    constant = w / w.sum()
    free: Array = constant * (regularisation / (w.sum() + regularisation))
    for rows in _blocks(z):
        parts = w[rows, None] * _double(z[rows]) ** 2 / s
        free[rows] += np.maximum(1 - constant[rows] - parts.sum(axis=1), 0)
        free[rows] += parts @ (regularisation / (s + regularisation))
    return free


def _blocks(rows: np.ndarray) -> Iterator[slice]:
    """Rows a few at a time: float64 copies of all of them would take gigabytes."""
    return (slice(start, start + 4096) for start in range(0, len(rows), 4096))


def _product(left: np.ndarray, right: Array) -> Array:
    return np.concatenate([_double(left[rows]) @ right for rows in _blocks(left)])


def _double(part: np.ndarray) -> Array:
    return part.astype(np.float64, copy=False)


def fit_temperature(scores: Array, labels: NDArray[np.integer], weights: Array) -> float:
    """The factor that makes scores logits.

    Targets are smoothed by what the number of images of a class allows to be known, (n + 1) /
    (n + 2), as in Platt, Probabilistic outputs for support vector machines, 1999: without it,
    scores that separate the classes would have no best factor.
    """
    num_classes = scores.shape[1]
    per_class = np.bincount(labels, minlength=num_classes)[labels]
    off = 1 / (per_class + 2)
    targets = np.eye(num_classes)[labels]
    targets = targets * (1 - off)[:, None] + (1 - targets) * (off / (num_classes - 1))[:, None]

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(np.exp(log_temperature) * scores, axis=1)
        return float(-weights @ (targets * log_p).sum(axis=1))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 6), method="bounded").x))


def solve_logistic(
    decomposition: Decomposition,
    labels: NDArray[np.integer],
    num_classes: int,
    regularisation: float,
) -> SolvedHead:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS in the principal directions.

    Args:
        decomposition: Decomposition of the features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ > 0 of Σ wᵢ log loss + λ/2 ‖β‖², for standardised features over √D. The
            intercept has no penalty.

    Raises:
        ModelError: λ is not above 0.
    """
    _check_penalty(regularisation)
    w, targets = decomposition.weights, np.eye(num_classes)[labels]
    count, rank = decomposition.coordinates.shape
    # Steps of about the same size in all directions and in the intercept, whose curvature grows
    # with the images: unscaled, it would take several times the iterations. Products in float32
    # take half the time.
    steps = 1 / np.sqrt(_CURVATURE * decomposition.variances + regularisation)
    step = 1 / np.sqrt(_CURVATURE * count)
    scaled = decomposition.coordinates.astype(np.float32) * steps.astype(np.float32)

    def loss(packed: Array) -> tuple[float, Array]:
        theta = packed.reshape(rank + 1, num_classes)
        logits = (scaled @ theta[:rank].astype(np.float32)).astype(np.float64) + step * theta[rank]
        log_p = log_softmax(logits, axis=1)
        beta = steps[:, None] * theta[:rank]
        value = -w @ (log_p * targets).sum(axis=1) + regularisation / 2 * (beta**2).sum()
        error = w[:, None] * (np.exp(log_p) - targets)
        slope = scaled.T @ error.astype(np.float32) + regularisation * steps[:, None] * beta
        gradient = np.vstack([slope, step * error.sum(axis=0)])
        return float(value) / count, gradient.ravel() / count

    found = minimize(
        loss,
        np.zeros((rank + 1) * num_classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": _GRADIENT_TOLERANCE, "ftol": _LOSS_TOLERANCE},
    )
    theta = found.x.reshape(rank + 1, num_classes)
    return _folded(decomposition, steps[:, None] * theta[:rank], step * theta[rank], None)


def _folded(
    decomposition: Decomposition, beta: Array, intercept: Array, loo: Array | None
) -> SolvedHead:
    """The head for raw features: standardisation and directions go into kernel and bias."""
    standard = decomposition.kernel(beta)
    kernel = standard / decomposition.scale[:, None]
    return SolvedHead(
        kernel=kernel.astype(np.float32),
        bias=(intercept - decomposition.mean @ kernel).astype(np.float32),
        train_logits=decomposition.coordinates @ beta + intercept,
        val_logits=_product(decomposition.val_rows, standard) + intercept,
        loo_logits=loo,
    )
