"""models.features.light_views: the same view of an image every time, and never far from it."""

import numpy as np

from pawtune.models.features.light_views import DEFAULT, LightAugmentation, round_transforms
from pawtune.models.features.view_rendering import render_views

SIDE = 33


def corners(transforms: np.ndarray) -> np.ndarray:
    """(n, 4, 2): where the corners of each view are read in its image, in pixels."""
    a0, a1, a2, b0, b1, b2 = np.moveaxis(transforms[:, 0].astype("float64"), -1, 0)
    places = [(0, 0), (SIDE - 1, 0), (0, SIDE - 1), (SIDE - 1, SIDE - 1)]
    return np.stack(
        [np.stack([a0 * x + a1 * y + a2, b0 * x + b1 * y + b2], axis=-1) for x, y in places], axis=1
    )


def test_a_view_depends_on_image_round_and_seed_alone() -> None:
    whole = round_transforms(2, 0, 50, SIDE, seed=7)
    assert whole.shape == (50, 1, 6)
    np.testing.assert_array_equal(whole[20:30], round_transforms(2, 20, 30, SIDE, seed=7))
    assert not np.array_equal(whole, round_transforms(3, 0, 50, SIDE, seed=7))
    assert not np.array_equal(whole, round_transforms(2, 0, 50, SIDE, seed=8))


def test_views_are_light() -> None:
    transforms = round_transforms(1, 0, 4000, SIDE, seed=0)
    places = corners(transforms)
    centre = places.mean(axis=1) - (SIDE - 1) / 2
    # The middle of a view is the shifted middle of the image, turned by the view's angle.
    reach = np.hypot(DEFAULT.max_shift * SIDE, DEFAULT.max_shift * SIDE)
    assert np.abs(centre).max() <= reach + 1e-3
    edge = places[:, 1] - places[:, 0]
    scale = np.hypot(*edge.T) / (SIDE - 1)
    assert 1 / (1 + DEFAULT.max_zoom) - 1e-4 <= scale.min() < 0.89
    assert 1.15 < scale.max() <= 1 / (1 - DEFAULT.max_zoom) + 1e-4
    mirrored = np.linalg.det(np.stack([edge, places[:, 2] - places[:, 0]], axis=1)) < 0
    assert 0.46 < mirrored.mean() < 0.54
    turn = np.rad2deg(np.arctan2(edge[:, 1], np.where(mirrored, -1, 1) * edge[:, 0]))
    assert 19 < np.abs(turn).max() <= DEFAULT.max_degrees + 1e-3


def test_no_augmentation_is_the_plain_image() -> None:
    still = LightAugmentation(max_degrees=0, max_zoom=0, max_shift=0, mirrored=0)
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    transforms = round_transforms(1, 0, 3, SIDE, seed=0, augmentation=still)
    views = render_views(images, transforms)[:, 0].numpy()
    np.testing.assert_allclose(views, images, atol=1e-3)


def test_a_shift_moves_pixels_by_whole_places() -> None:
    from pawtune.models.features.light_views import zoom_and_shift
    from pawtune.models.features.view_transforms import view_transforms

    images = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    plain = view_transforms(np.zeros((1, 1), np.float32), np.zeros((1, 1), bool), SIDE)
    moved = zoom_and_shift(plain, np.ones(1), np.array([[2.0, 5.0]]), SIDE)
    view = render_views(images, moved)[0, 0].numpy()
    np.testing.assert_allclose(view[:-5, :-2], images[0, 5:, 2:], atol=1e-3)
