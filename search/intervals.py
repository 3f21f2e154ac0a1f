"""Confidence intervals of a proportion."""

from math import sqrt
from statistics import NormalDist


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for `correct` successes out of `total` (at least 1).

    Unlike the textbook interval it stays inside [0, 1] and keeps its coverage near 1, where good
    classifiers are. Source: Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22 (1927), https://doi.org/10.1080/01621459.1927.10502953.

    >>> low, high = wilson_interval(197, 200)
    >>> round(low, 4), round(high, 4)
    (0.9568, 0.9949)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return max(0.0, centre - spread), min(1.0, centre + spread)
