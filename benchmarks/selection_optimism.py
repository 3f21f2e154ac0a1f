"""What picking the best of many does to its validation accuracy, and what the correction mends.

    python benchmarks/selection_optimism.py

Simulated candidates of known true accuracy; the winner is picked on N images. Printed are the mean
of (as seen - true) and of (corrected - true), the true accuracy being the winner's own, and how
often the 95% interval of the correction holds it. Some two minutes on two cores.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pawtune.search.results.selection_bias import correct_selection

CANDIDATES = 100
Truth = Callable[[np.random.Generator], NDArray[np.float64]]


def equal(rng: np.random.Generator) -> NDArray[np.float64]:
    """All equally good: whoever wins was lucky."""
    return np.full(CANDIDATES, 0.8)


def close(rng: np.random.Generator) -> NDArray[np.float64]:
    """As after a search: most within a few points of each other."""
    return rng.normal(0.8, 0.02, CANDIDATES)


def spread(rng: np.random.Generator) -> NDArray[np.float64]:
    """A few good ones among many bad ones."""
    return rng.uniform(0.5, 0.95, CANDIDATES)


def main() -> None:
    """Prints one line for each kind of candidates and number of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--bootstraps", type=int, default=300)
    options = parser.parse_args()
    print(f"best of {CANDIDATES}, {options.repetitions} repetitions; percentage points")
    print("candidates  images  as seen  corrected  interval holds the truth")
    for truth in (equal, close, spread):
        for images in (300, 800, 3000):
            rng = np.random.default_rng(images)
            found = np.array(
                [repeat(rng, truth, images, options.bootstraps) for _ in range(options.repetitions)]
            )
            seen, corrected, held = found.mean(axis=0)
            print(
                f"{truth.__name__:<10}  {images:>6}  {100 * seen:>+7.2f}  {100 * corrected:>+9.2f}"
                f"  {100 * held:>6.1f}%"
            )


def repeat(
    rng: np.random.Generator, truth: Truth, images: int, bootstraps: int
) -> tuple[float, float, bool]:
    """One search: errors of both figures, and whether the interval holds the truth."""
    accuracies = truth(rng)
    hits = (rng.random((CANDIDATES, images)) < accuracies[:, None]).astype(np.float32)
    # The loss only breaks ties: it knows no more than the hits.
    found = correct_selection(
        hits,
        1 - hits,
        np.zeros(images, np.int32),
        bootstraps=bootstraps,
        seed=int(rng.integers(2**31)),
    )
    winner = int(hits.sum(axis=1).argmax())
    true = float(accuracies[winner])
    low, high = found.interval_95
    return float(hits[winner].mean()) - true, found.accuracy - true, low <= true <= high


if __name__ == "__main__":
    main()
