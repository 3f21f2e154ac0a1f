"""Independent random numbers from one seed: each purpose has a stream of its own.

NumPy's `default_rng((seed, 1))` is the same stream whoever asks for it, the views of a bank or the
order of images in epoch 1. A spawn key keeps purposes apart (NumPy, Parallel Random Number
Generation, `SeedSequence.spawn`).
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for. Never give a number to another purpose."""

    VIEW_ANGLES = 1
    VIEW_DRAWS = 2
    EPOCH_ORDER = 3
    LAYERS = 4


def seed_sequence(stream: Stream, seed: int, number: int = 0) -> np.random.SeedSequence:
    """Entropy of a stream.

    Args:
        stream: the purpose.
        seed: seed of the trial, from 0.
        number: number of the epoch, from 0, where each has its own random numbers.
    """
    return np.random.SeedSequence(seed, spawn_key=(stream, number))


def random_numbers(stream: Stream, seed: int, number: int = 0) -> np.random.Generator:
    """A generator at the start of a stream; arguments as of `seed_sequence`."""
    return np.random.default_rng(seed_sequence(stream, seed, number))
