"""The best trial's validation accuracy, corrected for having picked the best of many.

The best of many candidates was partly lucky on the validation images, so its accuracy there is
too high. BBC-CV plays the choice again and again: draw validation images with replacement, pick
the winner on those drawn, score it on those left out. The mean of these scores is the corrected
accuracy. Source: Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample
predictions for efficient and accurate cross-validation, Machine Learning 107 (2018) 1895-1922,
https://doi.org/10.1007/s10994-018-5714-4.

Not corrected is the choice of the best epoch inside a trial: only its predictions are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.manifest import validation_labels
from pawtune.search.objective import METRICS, Metric
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.metrics import LEARNED_NOTHING, Majority, wilson_interval
from pawtune.search.results.validation import read_predictions
from pawtune.search.storage.run_folder import RunFolder

BOOTSTRAPS = 1000
CHUNK_CELLS = 4_000_000  # images x bootstraps at once: 16 MB an array
SMALLEST = 1e-7  # probability that a loss is counted at, at least: it stays finite

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CorrectedAccuracy:
    """What `correct_selection` found.

    Attributes:
        accuracy: Mean accuracy of the winner on images that did not choose it.
        interval_95: Percentiles 2.5 and 97.5 of the bootstrap, but no narrower than Wilson's
            interval of `accuracy` on so many images.
    """

    accuracy: float
    interval_95: tuple[float, float]


@dataclass(frozen=True)
class ValidationEstimate:
    """The winner on the validation split, uncorrected and corrected.

    Attributes:
        trial_id: The winner.
        accuracy: Its validation accuracy, uncorrected.
        corrected_accuracy: The same, corrected for the choice among `candidates`.
        interval_95: Bootstrap interval of the corrected accuracy.
        candidates: Number of trials that it was picked from.
        images: Number of validation images.
        majority: The validation split's most frequent class.
    """

    trial_id: str
    accuracy: float
    corrected_accuracy: float
    interval_95: tuple[float, float]
    candidates: int
    images: int
    majority: Majority

    @property
    def learned_nothing(self) -> bool:
        """Whether a constant answer scores the same."""
        return self.majority.is_all_of(self.accuracy)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "learned_nothing": self.learned_nothing}

    def __str__(self) -> str:
        low, high = self.interval_95
        return (
            f"validation accuracy {self.accuracy:.4f} uncorrected, {self.corrected_accuracy:.4f} "
            f"corrected for picking the best of {self.candidates} "
            f"(95% interval {low:.4f} to {high:.4f}); {self.majority}"
            + (f"; {LEARNED_NOTHING}" if self.learned_nothing else "")
        )


def estimate_validation(
    run: RunFolder, rows: Sequence[Row], metric: Metric
) -> ValidationEstimate | None:
    """The winner's accuracy uncorrected and corrected.

    Args:
        run: The run.
        rows: The leaderboard, best first.
        metric: Metric that the search optimised.

    Returns:
        None where the manifest or the winner's predictions cannot be read, or the metric is the
        user's own.
    """
    if metric not in METRICS:  # a function of the user's own, which is not called again here
        return None
    try:
        class_names, labels = validation_labels(run.root)
    except DataError:
        return None
    usable = [row for row in rows if row.best_epoch is not None]
    scores = read_scores(run, usable, labels, len(class_names))
    if scores is None or len(labels) < 2:
        return None
    hits, losses = scores
    counts = np.bincount(labels, minlength=len(class_names))
    corrected = correct_selection(hits, losses, labels, metric)
    return ValidationEstimate(
        trial_id=usable[0].trial_id,
        accuracy=float(hits[0].mean(dtype=np.float64)),
        corrected_accuracy=corrected.accuracy,
        interval_95=corrected.interval_95,
        candidates=len(hits),
        images=len(labels),
        majority=Majority(class_names[int(counts.argmax())], float(counts.max() / len(labels))),
    )


def describe_winner(estimate: ValidationEstimate | None, rows: Sequence[Row]) -> str | None:
    """The line about the best trial's validation figures; None where there is nothing to say.

    Args:
        estimate: Estimate of the winner, from `estimate_validation`.
        rows: The leaderboard, best first.
    """
    usable = [row for row in rows if row.best_epoch is not None]
    if estimate is not None:
        return str(estimate)
    if len(usable) < 2 or usable[0].own_metric is None:
        return None
    return (
        f"{usable[0].own_metric} and validation accuracy are not corrected for picking the best of "
        f"{len(usable)}, which makes both too high: pawtune test says what the winner is worth"
    )


def read_scores(
    run: RunFolder, rows: Sequence[Row], labels: NDArray[np.int32], classes: int
) -> tuple[Floats, Floats] | None:
    """Hits and losses of stored predictions; one trial's probabilities are in memory at a time.

    Args:
        run: The run.
        rows: Its trials with a finished epoch, best first.
        labels: (N,) class of each validation image.
        classes: How many.

    Returns:
        (T, N) hits, 1 where a trial names the image's class, and (T, N) losses, cross entropy, of
        those trials whose predictions can be read: 8 bytes for each trial and image. None where
        those of the first cannot.
    """
    images = np.arange(len(labels))
    hits = np.empty((len(rows), len(labels)), np.float32)
    losses = np.empty_like(hits)
    kept = 0
    for row in rows:
        probabilities = read_predictions(run.trial(row.trial_id), (len(labels), classes))
        if isinstance(probabilities, str):
            if not kept:
                return None
            continue
        hits[kept] = probabilities.argmax(axis=1) == labels
        losses[kept] = -np.log(np.maximum(probabilities[images, labels], SMALLEST))
        kept += 1
    return (hits[:kept], losses[:kept]) if kept else None


def correct_selection(
    hits: Floats,
    losses: Floats,
    labels: NDArray[np.int32],
    metric: Metric = "val_accuracy",
    *,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> CorrectedAccuracy:
    """Repeats the choice of the best candidate on bootstrap samples (see the module).

    Args:
        hits: (T, N) 1 where a candidate names the image's class, else 0.
        losses: (T, N) cross entropy.
        labels: (N,) class of each image.
        metric: How the winner is picked; ties by loss, as in the search.
        bootstraps: Number of times that the choice is played.
        seed: Seed of the draws.
    """
    scores = []
    for drawn in _draws(hits.shape[1], bootstraps, np.random.default_rng(seed)):
        winner = _pick(drawn, hits, losses, labels, metric)
        left_out = drawn == 0
        right = (hits[winner] * left_out).sum(axis=1)
        scores.append(right / np.maximum(1, left_out.sum(axis=1)))
    all_scores = np.concatenate(scores)
    accuracy = float(all_scores.mean())
    low, high = np.percentile(all_scores, [2.5, 97.5])
    # Images that are all right, or nearly, look alike in every draw: the bootstrap has no width.
    images = hits.shape[1]
    lowest, highest = wilson_interval(round(accuracy * images), images)
    return CorrectedAccuracy(accuracy, (float(min(low, lowest)), float(max(high, highest))))


def _draws(images: int, bootstraps: int, rng: np.random.Generator) -> Iterator[Floats]:
    """(B, N) how often each image is drawn, in chunks; every draw leaves some image out."""
    chunk = max(1, CHUNK_CELLS // images)
    for start in range(0, bootstraps, chunk):
        size = min(chunk, bootstraps - start)
        places = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * images).reshape(size, images)
        full = (counts > 0).all(axis=1)
        yield counts[~full].astype(np.float32)  # only in tiny splits: nothing to score on


def _pick(
    drawn: Floats, hits: Floats, losses: Floats, labels: NDArray[np.int32], metric: Metric
) -> NDArray[np.intp]:
    """(B,) the winner of each draw; the earlier candidate of equals."""
    loss = drawn @ losses.T
    if metric == "val_loss":
        lowest: NDArray[np.intp] = loss.argmin(axis=1)
        return lowest
    value = _balanced(drawn, hits, labels) if metric == "val_balanced_accuracy" else drawn @ hits.T
    # Sums of 0 and 1 are exact in float32; the means of recalls are not.
    tied = value >= value.max(axis=1, keepdims=True) - 1e-6
    winner: NDArray[np.intp] = np.where(tied, loss, np.inf).argmin(axis=1)
    return winner


def _balanced(drawn: Floats, hits: Floats, labels: NDArray[np.int32]) -> Floats:
    """(B, T) mean recall over the classes that were drawn."""
    total = np.zeros((len(drawn), len(hits)), np.float32)
    present = np.zeros((len(drawn), 1), np.float32)
    for label in np.unique(labels):
        chosen = labels == label
        count = drawn[:, chosen].sum(axis=1, keepdims=True)
        total += drawn[:, chosen] @ hits[:, chosen].T / np.maximum(1, count)
        present += count > 0
    return total / present
