"""How often a 95% interval of a test accuracy holds the true accuracy: Wilson's and the textbook's.

    python benchmarks/interval_coverage.py

Simulated tests of n images; seconds.
"""

from math import sqrt

import numpy as np

from pawtune.search.results.metrics import wilson_interval

DRAWS = 20_000
SIZES = (50, 200, 1000, 5000)
ACCURACIES = (0.6, 0.8, 0.9, 0.95, 0.98, 0.99)


def main() -> None:
    """Prints coverage in percent by test size and true accuracy."""
    print("coverage of 95% intervals in percent, Wilson / textbook; columns: true accuracy")
    print(f"{'n':>5}  " + "  ".join(f"{accuracy:>13.2f}" for accuracy in ACCURACIES))
    rng = np.random.default_rng(0)
    covered = []
    for size in SIZES:
        cells = []
        for accuracy in ACCURACIES:
            wilson, textbook = coverage(rng, size, accuracy)
            covered.append(wilson)
            cells.append(f"{100 * wilson:>5.1f} / {100 * textbook:>5.1f}")
        print(f"{size:>5}  " + "  ".join(cells))
    print(f"Wilson: lowest {100 * min(covered):.1f}, mean {100 * np.mean(covered):.1f}")


def coverage(rng: np.random.Generator, size: int, accuracy: float) -> tuple[float, float]:
    """Share of simulated tests whose interval holds the true accuracy."""
    hits, times = np.unique(rng.binomial(size, accuracy, DRAWS), return_counts=True)
    wilson = textbook = 0
    for correct, count in zip(hits, times, strict=True):
        low, high = wilson_interval(int(correct), size)
        wilson += count * (low <= accuracy <= high)
        share = correct / size
        margin = 1.96 * sqrt(share * (1 - share) / size)
        textbook += count * (abs(share - accuracy) <= margin)
    return wilson / DRAWS, textbook / DRAWS


if __name__ == "__main__":
    main()
