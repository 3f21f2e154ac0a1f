"""What an epoch yields, and how it is computed: the same for live training and fast heads."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from pawtune.models.errors import DivergedError


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        metrics: loss and accuracy (running means over the epoch's batches, as Keras has them),
            val_loss, val_accuracy, val_balanced_accuracy, learning_rate, seconds (training and
            validation), images_per_second (training alone).
        val_probabilities: (N_val, C) float32, in the order of the validation images.
    """

    epoch: int
    metrics: dict[str, float]
    val_probabilities: NDArray[np.float32]


def epoch_result(
    epoch: int,
    *,
    loss: float,
    accuracy: float,
    val_logits: NDArray[np.floating],
    val_labels: NDArray[np.integer],
    learning_rate: float,
    num_images: int,
    train_seconds: float,
    seconds: float,
) -> EpochResult:
    """Score the validation logits and put an epoch's numbers together.

    Args:
        val_logits: (N_val, C).
        val_labels: (N_val,) class indices.
        num_images: trained on in `train_seconds`; `seconds` counts validation too.

    Raises:
        DivergedError: the loss or a logit is NaN or infinite.
    """
    scores, probabilities = score(val_logits, val_labels)
    for name, value in {"loss": loss, "val_loss": scores["val_loss"]}.items():
        if not isfinite(value):
            raise DivergedError(
                f"{name} must stay finite, received {value} in epoch {epoch}: "
                f"try a learning_rate below {learning_rate:g}"
            )
    metrics = {
        "loss": loss,
        "accuracy": accuracy,
        **scores,
        "learning_rate": learning_rate,
        "seconds": seconds,
        "images_per_second": num_images / train_seconds,
    }
    return EpochResult(epoch, metrics, probabilities)


def score(
    logits: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Cross-entropy, accuracy and balanced accuracy (mean recall of the classes present).

    In float64: sums over many images lose digits in float32, and a rank may hang on them.

    Args:
        logits: (N, C).
        labels: (N,) class indices.

    Returns:
        val_loss, val_accuracy, val_balanced_accuracy; (N, C) float32 probabilities.
    """
    with np.errstate(invalid="ignore"):  # infinite logits: the loss becomes NaN, and says so
        shifted = logits.astype("float64") - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    hits = log_probabilities.argmax(axis=1) == labels
    scores = {
        "val_loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "val_accuracy": float(hits.mean()),
        "val_balanced_accuracy": float(
            np.mean([hits[labels == label].mean() for label in np.unique(labels)])
        ),
    }
    return scores, np.exp(log_probabilities).astype("float32")


def balancing_weights(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.float32]:
    """A weight for each class, n / (C * n_c), so that all count alike; 0 for an absent class."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * np.maximum(counts, 1)) * (counts > 0)).astype("float32")
