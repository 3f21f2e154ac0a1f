"""How many test images a well-known split recipe shows in validation too.

    python benchmarks/split_leak.py

The recipe: 1,000 validation images in a data set that shuffles again each time it is gone through,
in batches of 32; `take(batches // 5)` of it is the test set, `skip(batches // 5)` the validation
set. Both shuffle for themselves, so both draw from all 1,000. Runs on indices; half a minute.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

IMAGES, BATCH = 1000, 32


def main() -> None:
    """Prints the leak after one pass and after several, by shuffle buffer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--passes", type=int, default=10, help="epochs, a validation each")
    options = parser.parse_args()
    for buffer in (BATCH * 8, 1024):
        found = np.array(
            [leak(buffer, options.passes, seed) for seed in range(options.repetitions)]
        )
        print(f"shuffle buffer of {buffer} images, {options.repetitions} repetitions:")
        for passes, column in ((1, 0), (options.passes, -1)):
            shared = found[:, column]
            print(
                f"  of {BATCH * (-(-IMAGES // BATCH) // 5)} test images, in validation too after "
                f"{passes} pass(es): mean {shared.mean():.0f}, {shared.min()} to {shared.max()}"
            )


def leak(buffer: int, passes: int, seed: int) -> list[int]:
    """Test images that validation has shown too, after each pass."""
    tf.random.set_seed(seed)
    images = tf.data.Dataset.range(IMAGES).shuffle(buffer).batch(BATCH)
    fifth = int(images.cardinality()) // 5
    test, validation = images.take(fifth), images.skip(fifth)
    tested = gathered(test)
    seen: set[int] = set()
    counts = []
    for _ in range(passes):
        seen |= gathered(validation)
        counts.append(len(tested & seen))
    return counts


def gathered(dataset: tf.data.Dataset) -> set[int]:
    """The images of one pass."""
    return {int(index) for batch in dataset.as_numpy_iterator() for index in batch}


if __name__ == "__main__":
    main()
