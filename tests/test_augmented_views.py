"""Views and their sampling: the angles and flips that a trial sees are those of Keras' layers."""

import time
from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pawtune.models.augmentation import augmentation_layers
from pawtune.models.errors import ModelError
from pawtune.models.features.augmented_views import (
    DEFAULT_NUM_VIEWS,
    TURN,
    ViewSampler,
    bank_supports,
    effective_views,
    make_view_table,
    median_effective_views,
    plan_rings,
    view_weights,
)
from pawtune.models.features.view_rendering import render_views
from pawtune.models.features.view_transforms import view_transforms
from pawtune.models.model_spec import Flip, ModelSpec

FLIPS: tuple[Flip, ...] = ("none", "horizontal", "horizontal_and_vertical")
DEFAULT_FACTORS = [round(0.05 * step, 2) for step in range(19)]
EPOCH_IMAGES = 2000

TABLE = make_view_table(EPOCH_IMAGES)


def keras_angles(flip: Flip, factor: float) -> NDArray[np.float64]:
    """Angles of Keras' rotations, 100,001 of them evenly; two flips count as half a turn."""
    angles = np.linspace(-factor, factor, 100_001) * TURN
    if flip == "horizontal_and_vertical":
        angles = np.concatenate([angles, angles + np.pi])
    return np.sort((angles + np.pi) % TURN - np.pi)


def ks_distance(seen: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance of angles to those of a large sorted sample."""
    seen = np.sort((seen + np.pi) % TURN - np.pi)
    expected = np.searchsorted(target, seen, side="right") / len(target)
    steps = np.arange(len(seen) + 1) / len(seen)
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))


def seen_views(flip: Flip, factor: float, epoch: int) -> tuple[NDArray[np.bool_], NDArray]:
    """Of each image in an epoch: whether it is mirrored, and its angle."""
    views = ViewSampler(TABLE, flip, factor, seed=3).views_for_epoch(epoch)
    return TABLE.mirrored[views], TABLE.angles[np.arange(EPOCH_IMAGES), views].astype(float)


# --- what a trial sees ---------------------------------------------------------------------


@given(
    flip=st.sampled_from(FLIPS),
    factor=st.floats(0.05, 1.0),
    epoch=st.integers(0, 40),
)
@example(flip="horizontal", factor=0.05, epoch=1)
@example(flip="horizontal_and_vertical", factor=0.1, epoch=1)
@example(flip="horizontal_and_vertical", factor=0.9, epoch=1)
def test_the_angles_of_an_epoch_are_uniform_as_in_keras(
    flip: Flip, factor: float, epoch: int
) -> None:
    _, angles = seen_views(flip, factor, epoch)
    assert ks_distance(angles, keras_angles(flip, factor)) < 0.05


@given(flip=st.sampled_from(FLIPS), factor=st.just(0.0) | st.floats(0.05, 1.0))
def test_half_of_the_images_are_mirrored_in_the_mode_that_mirrors(
    flip: Flip, factor: float
) -> None:
    mirrored, _ = seen_views(flip, factor, epoch=1)
    # The starts are stratified over the images: closer to a half than coins are.
    expected = 0.5 if flip == "horizontal" else 0.0
    assert mirrored.mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("flip", FLIPS)
def test_flips_without_rotation_are_those_of_keras_layer(flip: Flip) -> None:
    # One bright corner: where it goes tells which flips were drawn.
    image = np.zeros((2, 2, 1), np.float32)
    image[0, 0] = 1
    flipped = np.stack([image] * EPOCH_IMAGES)
    for layer in augmentation_layers(ModelSpec(family="conv", flip=flip), seed=0):
        flipped = np.asarray(layer(flipped, training=True))
    corners = flipped.reshape(-1, 4).mean(axis=0)

    mirrored, angles = seen_views(flip, 0.0, epoch=1)
    upside_down = np.isclose(np.abs(angles), np.pi)
    assert np.all(upside_down | (angles == 0))
    # (top left, top right, bottom left, bottom right): upright, mirrored, never, both flips.
    shares = [
        np.mean(~mirrored & ~upside_down),
        np.mean(mirrored & ~upside_down),
        np.mean(mirrored & upside_down),
        np.mean(~mirrored & upside_down),
    ]
    assert corners == pytest.approx(shares, abs=0.05)


def test_the_sequence_of_an_image_keeps_its_weights_and_spreads_reuse() -> None:
    weights = view_weights(TABLE, "horizontal", 0.2)
    sampler = ViewSampler(TABLE, "horizontal", 0.2, seed=5)
    views = np.stack([sampler.views_for_epoch(epoch) for epoch in range(1, 21)])
    counts = np.stack([(views == view).sum(axis=0) for view in range(TABLE.num_views)], axis=1)
    assert np.abs(counts - 20 * weights).max() < 2
    assert not counts[weights == 0].any()


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    one, two = (ViewSampler(TABLE, "none", 0.3, seed=1) for _ in range(2))
    for epoch in (7, 3):  # out of order
        assert np.array_equal(one.views_for_epoch(epoch), two.views_for_epoch(epoch))
    assert not np.array_equal(one.views_for_epoch(1), one.views_for_epoch(2))
    other = ViewSampler(TABLE, "none", 0.3, seed=2)
    assert not np.array_equal(one.views_for_epoch(1), other.views_for_epoch(1))


def test_the_views_of_an_epoch_are_drawn_at_once() -> None:
    """Twenty epochs of 2,000 images take milliseconds; image by image they would take seconds."""
    start = time.process_time()
    sampler = ViewSampler(TABLE, "horizontal", 0.2)
    for epoch in range(20):
        sampler.views_for_epoch(epoch)
    assert time.process_time() - start < 1


def test_features_are_those_of_the_views_drawn() -> None:
    features = np.arange(TABLE.angles.size).reshape(*TABLE.angles.shape, 1).astype(np.float32)
    sampler = ViewSampler(TABLE, "none", 0.5, seed=1)
    views = sampler.views_for_epoch(4)
    drawn = sampler.features_for_epoch(features, 4)
    assert np.array_equal(drawn[:, 0], np.arange(EPOCH_IMAGES) * TABLE.num_views + views)
    order = np.array([5, 0, 1999])
    assert np.array_equal(sampler.features_for_epoch(features, 4, order), drawn[order])


# --- weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", FLIPS)
def test_every_setting_of_the_default_space_is_served(flip: Flip) -> None:
    for factor in DEFAULT_FACTORS:
        assert bank_supports(flip, factor), factor
    assert median_effective_views(flip, 0.2, DEFAULT_NUM_VIEWS) > 4


@given(
    flip=st.sampled_from(FLIPS),
    factor=st.just(0.0) | st.floats(0.05, 1.0),
    num_views=st.integers(9, 40),
)
def test_weights_of_an_image_sum_to_one(flip: Flip, factor: float, num_views: int) -> None:
    try:
        weights = view_weights(make_view_table(50, num_views), flip, factor)
    except ModelError:  # too few views: trained live
        assert num_views < DEFAULT_NUM_VIEWS
        assert not bank_supports(flip, factor, num_views)
        return
    assert weights.min() >= 0
    assert weights.sum(axis=1) == pytest.approx(np.ones(50))


def test_a_bank_of_few_views_says_what_it_cannot_serve() -> None:
    # Of 8 views one upright ring reaches from 0.05 to 0.5: no whole ring is inside, upside down.
    with pytest.raises(ModelError, match="8 views serves no rotation factor 0.25 upside down"):
        view_weights(make_view_table(50, 8), "horizontal_and_vertical", 0.25)
    assert not bank_supports("horizontal_and_vertical", 0.25, 8)


def test_weights_of_one_ring_by_hand() -> None:
    # At factor 0.05 only the innermost rings are inside: two upright views, one mirrored.
    expected = np.zeros(DEFAULT_NUM_VIEWS)
    expected[[3, 4]] = 0.25
    first_mirrored = 3 + sum(ring.count for ring in TABLE.rings if not ring.mirrored)
    expected[first_mirrored] = 0.5
    assert view_weights(TABLE, "horizontal", 0.05) == pytest.approx(
        np.tile(expected, (EPOCH_IMAGES, 1))
    )
    # 1 / (0.25² + 0.25² + 0.5²)
    assert effective_views(expected[None])[0] == pytest.approx(8 / 3)


@pytest.mark.parametrize(
    ("flip", "columns"),
    [("none", [0]), ("horizontal", [0, 1]), ("horizontal_and_vertical", [0, 2])],
)
def test_without_rotation_the_plain_image_and_its_flips_are_shown(
    flip: Flip, columns: list[int]
) -> None:
    weights = view_weights(TABLE, flip, 0.0)
    assert weights[:, columns] == pytest.approx(1 / len(columns))
    assert TABLE.angles[0, :3].tolist() == pytest.approx([0, 0, np.pi])
    assert TABLE.mirrored[:3].tolist() == [False, True, False]


# --- the table -----------------------------------------------------------------------------


def test_views_of_an_image_depend_on_seed_and_index_alone() -> None:
    longer = make_view_table(EPOCH_IMAGES + 500)
    assert np.array_equal(longer.angles[:EPOCH_IMAGES], TABLE.angles)
    assert not np.array_equal(make_view_table(EPOCH_IMAGES, seed=1).angles, TABLE.angles)


@pytest.mark.parametrize("num_views", [8, 12, 17, 24, 40])
def test_rings_cover_the_circle_and_hold_their_views(num_views: int) -> None:
    rings = plan_rings(num_views)
    for mirrored in (False, True):
        chosen = [ring for ring in rings if ring.mirrored == mirrored]
        assert [ring.inner for ring in chosen][0] == 0
        assert [ring.outer for ring in chosen][-1] == 0.5
        assert all(near.outer == far.inner for near, far in pairwise(chosen))
    table = make_view_table(100, num_views)
    assert table.angles.shape == (100, num_views)
    assert table.mirrored.shape == (num_views,)
    distance = np.abs(table.angles[:, 3:]) / TURN
    inner = np.repeat([ring.inner for ring in rings], [ring.count for ring in rings])
    outer = np.repeat([ring.outer for ring in rings], [ring.count for ring in rings])
    assert np.all((distance > inner - 1e-6) & (distance < outer + 1e-6))


def test_a_table_of_one_view_is_the_plain_image() -> None:
    table = make_view_table(3, num_views=1)
    assert table.angles.tolist() == [[0], [0], [0]]
    assert table.mirrored.tolist() == [False]
    assert bank_supports("none", 0.0, num_views=1)
    assert not bank_supports("horizontal", 0.0, num_views=1)


@pytest.mark.parametrize(
    ("flip", "factor", "num_views", "message"),
    [
        ("none", 0.02, 17, r"factors 0 and from 0.05, received 0.02: train this trial live"),
        ("none", 1.5, 17, r"from 0 to 1, received 1.5"),
        ("horizontal", 0.0, 1, r"plain images alone .* received flip 'horizontal'.*give 17 views"),
        ("vertical", 0.0, 17, r"one of none, horizontal, .* received 'vertical'"),
    ],
)
def test_what_a_bank_lacks_is_said(flip: Flip, factor: float, num_views: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ViewSampler(make_view_table(4, num_views), flip, factor)
    assert not bank_supports(flip, factor, num_views)


def test_the_smallest_bank_says_what_it_lacks() -> None:
    table = make_view_table(20, num_views=8)
    assert view_weights(table, "none", 0.1).sum(axis=1) == pytest.approx(np.ones(20))
    with pytest.raises(ModelError, match=r"8 views serves no rotation factor 0.1 upside down"):
        view_weights(table, "horizontal_and_vertical", 0.1)
    assert not bank_supports("horizontal_and_vertical", 0.1, num_views=8)


def test_too_few_views_are_refused() -> None:
    with pytest.raises(ModelError, match=r"at least 8 views .* received 5: give 17"):
        make_view_table(10, num_views=5)


# --- rendering -----------------------------------------------------------------------------


def photograph(size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random colours, no symmetry."""
    small = np.random.default_rng(seed).integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    return np.asarray(keras.ops.image.resize(small, (size, size)))[0].astype(np.uint8)


@pytest.mark.parametrize("size", [31, 32])
@pytest.mark.parametrize("flip_h", [False, True])
@pytest.mark.parametrize("flip_v", [False, True])
def test_views_are_rendered_as_keras_layers_draw_them(
    size: int, flip_h: bool, flip_v: bool
) -> None:
    degrees = np.array([-170.0, -90.0, -33.0, 0.0, 2.5, 45.0, 100.0, 180.0], np.float32)
    image = photograph(size)
    flipped = image[:: -1 if flip_v else 1, :: -1 if flip_h else 1].astype(np.float32)
    layer = keras.layers.RandomRotation(1.0)
    matrix = layer._compute_affine_matrix(
        0.5, 0.5, degrees, *[np.zeros(8, np.float32)] * 2, np.ones(8, np.float32),
        *[np.zeros(8, np.float32)] * 2, size, size,
    )  # fmt: skip
    transformation = {"angle": degrees, "rotation_matrix": matrix}
    expected = layer.transform_images(np.stack([flipped] * 8), transformation, training=True)

    # The view that stands for both flips: the mirror image where just one, half a turn for v.
    angles = np.radians(degrees)[None] + np.float32(np.pi) * flip_v
    transforms = view_transforms(angles, np.array([flip_h != flip_v]), size)
    views = np.asarray(render_views(image[None], transforms))[0]
    assert np.abs(views - np.asarray(expected)).max() < 0.05


def test_a_rotation_factor_of_keras_is_in_turns_and_its_sign_is_ours() -> None:
    image = photograph(32)
    layer = keras.layers.RandomRotation((0.125, 0.125))  # always an eighth of a turn
    expected = np.asarray(layer(image[None].astype(np.float32), training=True))[0]
    transforms = view_transforms(np.array([[TURN / 8]], np.float32), np.array([False]), 32)
    view = np.asarray(render_views(image[None], transforms))[0, 0]
    assert np.abs(view - expected).max() < 0.05


def test_views_without_rotation_are_exact() -> None:
    images = np.stack([photograph(32), photograph(32, seed=1)])
    transforms = view_transforms(
        np.array([[0, 0, np.pi]] * 2, np.float32), np.array([False, True, False]), 32
    )
    views = np.asarray(render_views(images, transforms))
    assert np.array_equal(views[:, 0], images)
    assert np.array_equal(views[:, 1], images[:, :, ::-1])
    assert np.abs(views[:, 2] - images[:, ::-1, ::-1]).max() < 1e-2
