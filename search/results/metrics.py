"""Arithmetic on labels and predictions: confusion, classes, calibration, paired comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Annotated

import numpy as np
import scipy  # loads scipy.stats where it is first used: 0.5 s
from numpy.typing import NDArray
from pydantic import Field

from pawtune.data_pipeline.safe_files import shown
from pawtune.search.storage.records import Words

CALIBRATION_BINS = 15

# As a look at the test split records them, see `EvaluationRecord`.
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Labels = NDArray[np.integer]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class ClassScore:
    """One class of a split; None where nothing was there to divide by."""

    name: Words
    images: Count
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar confidence.

    Attributes:
        images: How many.
        confidence: Mean probability of the class that was named.
        accuracy: Share of them that is right.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same images, by McNemar's exact test.

    Attributes:
        only_first: Images that only the first names right.
        only_second: Images that only the second names right.
        p_value: Chance of a split at least as uneven if both were equally good.
    """

    only_first: Count
    only_second: Count
    p_value: Share


@dataclass(frozen=True)
class Majority:
    """The most frequent class of a split: what a constant answer scores.

    Attributes:
        label: The class.
        share: Its share of the images, from 0 to 1.
    """

    label: Words
    share: Share

    def __str__(self) -> str:
        return f"always {shown(self.label)} scores {self.share:.4f}"

    def is_all_of(self, accuracy: float) -> bool:
        """Whether an accuracy is no better: a model that has it has learned nothing."""
        return accuracy <= self.share + 1e-9


LEARNED_NOTHING = "it is no better than that constant answer: it has learned nothing"


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """(C, C) images by true and predicted class, from (N,) and (N,)."""
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return confusion


def score_classes(confusion: NDArray[np.int64], names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class."""
    right, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassScore(
            name=name,
            images=int(true[number]),
            precision=_share(right[number], predicted[number]),
            recall=_share(right[number], true[number]),
            f1=_share(2 * right[number], predicted[number] + true[number]),
        )
        for number, name in enumerate(names)
    )


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def calibration_error(
    probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, bin by bin.

    Bins of equal width by the confidence of the named class, weighted by their images. Source:
    Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017,
    https://arxiv.org/abs/1706.04599.

    Args:
        probabilities: (N, C), N at least 1.
        labels: (N,) true classes.
        bins: How many.
    """
    gaps = (
        each.images * abs(each.accuracy - each.confidence)
        for each in reliability(probabilities, labels, bins)
    )
    return sum(gaps) / len(labels)


def reliability(
    probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """The bins of `calibration_error` that hold images, the least confident first."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    # A bin holds its upper edge: confidence 1 lies in the last.
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return tuple(
        ReliabilityBin(int(of.sum()), float(confidence[of].mean()), float(right[of].mean()))
        for of in (places == place for place in np.unique(places))
    )


def compare_paired(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> Comparison:
    """McNemar's exact test, two-sided, on (N,) and (N,) right answers to the same images.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions,
    Psychometrika 12 (1947), https://doi.org/10.1007/BF02295996.
    """
    first = int(np.sum(first_right & ~second_right))
    second = int(np.sum(second_right & ~first_right))
    test = scipy.stats.binomtest(first, first + second) if first + second else None
    return Comparison(first, second, float(test.pvalue) if test else 1.0)


def log_losses(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """(N,) minus the logarithm of what each image's true class of (N, C) is given."""
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    found: NDArray[np.float64] = -np.log(np.maximum(given, np.finfo(np.float32).tiny))
    return found


def p_of_lower(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """p of a paired t test, one-sided: that the mean of (N,) `first` is lower than of `second`.

    1 where all differences are equal: such numbers are no losses of different images.
    """
    if len(first) < 2 or np.ptp(first - second) == 0:
        return 1.0
    return float(scipy.stats.ttest_rel(first, second, alternative="less").pvalue)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95% score interval for `correct` successes out of `total` (at least 1).

    Unlike the textbook interval it stays inside [0, 1] and keeps its coverage near 1, where good
    classifiers are. Source: Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22 (1927), https://doi.org/10.1080/01621459.1927.10502953.

    >>> low, high = wilson_interval(197, 200)
    >>> round(low, 4), round(high, 4)
    (0.9568, 0.9949)
    """
    z = NormalDist().inv_cdf(0.975)
    share = correct / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2) / (1 + z**2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)
