"""Wilson's interval against values worked out by hand."""

import numpy as np
import pytest

from pawtune.search.results.metrics import wilson_interval


@pytest.mark.parametrize(
    ("correct", "total", "expected"),
    [
        (197, 200, (0.9568, 0.9949)),
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (5, 10, (0.2366, 0.7634)),
    ],
)
def test_wilson_interval(correct: int, total: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(correct, total) == pytest.approx(expected, abs=1e-4)


def test_wilson_interval_narrows_with_more_images() -> None:
    widths = [high - low for low, high in (wilson_interval(n * 9, n * 10) for n in (2, 20, 200))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("total", [200, 1000])
@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.9, 0.95, 0.98])
def test_the_interval_holds_the_truth_as_often_as_it_says(total: int, accuracy: float) -> None:
    """10,000 simulated tests: standard error 0.2 points."""
    draws = np.random.default_rng(total).binomial(total, accuracy, 10_000)
    intervals = {correct: wilson_interval(correct, total) for correct in set(draws.tolist())}
    held = [low <= accuracy <= high for low, high in map(intervals.__getitem__, draws.tolist())]
    assert np.mean(held) >= 0.93
