"""Random numbers of one seed: no purpose, and no epoch, has those of another."""

import itertools

import numpy as np

from pawtune.models.features.augmented_views import make_view_table, plan_rings
from pawtune.models.random_streams import Stream, random_numbers
from pawtune.models.training.live_training import epoch_order

SEED = 7


def test_views_and_orders_of_a_seed_share_no_random_numbers() -> None:
    """The offsets of a bank's views were the stream of epoch 1, a trial's draws that of epoch 2."""
    images = 200
    rings = plan_rings(8)
    table = make_view_table(images, 8, SEED)
    for epoch in range(4):
        shared = np.random.default_rng((SEED, epoch))
        assert not (epoch_order(images, SEED, epoch) == shared.permutation(images)).all()
        shared = np.random.default_rng((SEED, epoch))
        offsets = shared.random((images, len(rings)))
        first = table.angles[:, 3] / (2 * np.pi)  # the first view of the innermost ring of two
        place = 2 * offsets[:, 0] / rings[0].count - 1
        expected = np.copysign(np.abs(place) * rings[0].outer, place)
        assert not np.allclose(first, expected, atol=1e-5)


def test_every_purpose_and_epoch_has_a_stream_of_its_own() -> None:
    keys = itertools.product(Stream, range(5), range(5))
    drawn = {tuple(random_numbers(*key).integers(0, 2**32, 4).tolist()) for key in keys}
    assert len(drawn) == len(Stream) * 25


def test_streams_are_the_same_everywhere() -> None:
    assert random_numbers(Stream.EPOCH_ORDER, 1, 2).permutation(8).tolist() == [
        6,
        0,
        3,
        1,
        2,
        7,
        4,
        5,
    ]
