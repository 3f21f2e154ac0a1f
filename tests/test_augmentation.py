"""Augmentation layers: what they change, what they leave, in which precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.data_pipeline.images.pictures import Change, changed
from pawtune.data_pipeline.images.preview import ANGLES_DEG, FLIPS, OTHERS
from pawtune.models.augmentation import augmentation_layers, frame_transforms
from pawtune.models.features.view_rendering import render_views
from pawtune.models.model_spec import Flip, ModelSpec, PixelNetSpec
from pawtune.models.precision import precision

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 3)).astype("float32")


def spun(flip: Flip, rotation_factor: float) -> ModelSpec:
    return ModelSpec(family="conv", flip=flip, rotation_factor=rotation_factor)


def augment(layers: list[keras.layers.Layer], training: bool = True) -> np.ndarray:
    x = IMAGES
    for layer in layers:
        x = layer(x, training=training)
    return np.asarray(x)


def test_nothing_asked_adds_no_layer() -> None:
    assert augmentation_layers(spun("none", 0.0), seed=0) == []


@pytest.mark.parametrize(
    ("flip", "flipped"),
    [
        ("horizontal", IMAGES[:, :, ::-1]),
        # Keras draws one coin for both axes.
        ("horizontal_and_vertical", IMAGES[:, ::-1, ::-1]),
    ],
)
def test_about_half_of_the_images_are_flipped(flip: Flip, flipped: np.ndarray) -> None:
    views = augment(augmentation_layers(spun(flip, 0.0), seed=1))
    is_plain = (views == IMAGES).all(axis=(1, 2, 3))
    is_flipped = (views == flipped).all(axis=(1, 2, 3))
    assert (is_plain ^ is_flipped).all()
    assert 20 <= is_flipped.sum() <= 44


@pytest.mark.parametrize("flip", ["none", "horizontal", "horizontal_and_vertical"])
def test_views_are_those_of_kerass_layers(flip: Flip) -> None:
    """Each view against `RandomFlip` done by hand and `RandomRotation` at the drawn angle."""
    photo = keras.ops.image.resize(IMAGES[:, :3, :3], (32, 32))
    [layer] = augmentation_layers(spun(flip, 0.4), seed=1)
    views = np.asarray(layer(photo, training=True))
    [again] = augmentation_layers(spun(flip, 0.4), seed=1)
    angles, mirrored = (np.asarray(drawn) for drawn in again.draw(64))
    for image, view, angle, mirror in zip(photo, views, angles, mirrored, strict=True):
        turn = (angle / (2 * np.pi),) * 2
        rotate = keras.layers.RandomRotation(turn, fill_mode="reflect", interpolation="bilinear")
        flipped = np.asarray(image)[None, :, :: -1 if mirror else 1]
        np.testing.assert_allclose(rotate(flipped, training=True)[0], view, atol=0.05)


@pytest.mark.parametrize("factor", [0.05, 0.3, 1.0])
def test_angles_and_coins_are_drawn_as_keras_draws_them(factor: float) -> None:
    limit = 2 * np.pi * factor
    grid = np.linspace(-limit, limit, 101)
    for flip in ("none", "horizontal", "horizontal_and_vertical"):
        [layer] = augmentation_layers(spun(flip, factor), seed=2)
        angles, mirrored = (np.asarray(drawn) for drawn in layer.draw(4000))
        turned = np.zeros(4000, bool)
        if flip == "horizontal_and_vertical":
            [same] = augmentation_layers(spun("none", factor), seed=2)
            turned = np.asarray(same.draw(4000)[0]) != angles
            angles = angles - np.pi * turned
        below = (angles[:, None] <= grid).mean(axis=0)
        assert np.abs(below - np.linspace(0, 1, 101)).max() < 0.03
        assert 0.47 < mirrored.mean() < 0.53 if flip == "horizontal" else not mirrored.any()
        assert 0.47 < turned.mean() < 0.53 if "vertical" in flip else not turned.any()


@pytest.mark.parametrize("flip", ["horizontal", "horizontal_and_vertical"])
def test_with_hardly_a_rotation_views_are_the_flips(flip: Flip) -> None:
    flipped = IMAGES[:, :, ::-1] if flip == "horizontal" else IMAGES[:, ::-1, ::-1]
    views = augment(augmentation_layers(spun(flip, 1e-7), seed=1))
    is_plain = np.abs(views - IMAGES).max(axis=(1, 2, 3)) < 0.01
    is_flipped = np.abs(views - flipped).max(axis=(1, 2, 3)) < 0.01
    assert (is_plain ^ is_flipped).all()
    assert 20 <= is_flipped.sum() <= 44


def test_outside_training_pixels_pass_through() -> None:
    layers = augmentation_layers(spun("horizontal_and_vertical", 0.9), seed=1)
    np.testing.assert_array_equal(augment(layers, training=False), IMAGES)


def test_views_derive_from_the_seed() -> None:
    first, again, other = (
        augment(augmentation_layers(spun("horizontal", 0.3), seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_low_precision_does_not_blur_views() -> None:
    exact = augment(augmentation_layers(spun("horizontal", 0.3), seed=1))
    with precision("mixed_bfloat16"):
        layers = augmentation_layers(spun("horizontal", 0.3), seed=1)
    np.testing.assert_array_equal(augment(layers), exact)


def test_zoom_and_shift_move_the_frame() -> None:
    """A ramp tells where each pixel was read: x · size + offset, within the factors."""
    side = 33
    ramp = np.broadcast_to(
        np.arange(side, dtype="float32")[None, None, :, None], (200, side, side, 3)
    )
    spec = PixelNetSpec(family="conv", image_size=33, zoom_factor=0.2, shift_factor=0.1)
    [layer] = augmentation_layers(spec, seed=3)
    rows = np.asarray(layer(tf.constant(ramp), training=True))[:, 16, :, 0]
    sizes = rows[:, 20] - rows[:, 12]  # over 8 pixels about the middle, far from the edges
    assert 0.8 <= sizes.min() / 8 < 0.85
    assert 1.15 < sizes.max() / 8 <= 1.2
    middles = (rows[:, 16] - 16) / side
    assert -0.1 <= middles.min() < -0.08
    assert 0.08 < middles.max() <= 0.1
    np.testing.assert_array_equal(layer(tf.constant(ramp)), ramp)  # not in training


def test_brightness_and_contrast_draw_as_keras_does_and_stay_pixels() -> None:
    spec = PixelNetSpec(family="conv", brightness_factor=0.2, contrast_factor=0.3)
    changed = augment(augmentation_layers(spec, seed=1))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.abs(changed.mean(axis=(1, 2, 3)) - IMAGES.mean(axis=(1, 2, 3))).max() > 20
    assert np.ptp(changed.std(axis=(1, 2)) / IMAGES.std(axis=(1, 2))) > 0.2
    with precision("mixed_bfloat16"):
        np.testing.assert_array_equal(augment(augmentation_layers(spec, seed=1)), changed)
    np.testing.assert_array_equal(augment(augmentation_layers(spec, seed=1), False), IMAGES)


TURNS = [Change(angle=np.deg2rad(angle)) for angle in ANGLES_DEG]


@pytest.mark.parametrize(
    "change", [*(Change(flip=flip) for flip in FLIPS), *TURNS, *OTHERS.values()]
)
def test_pictures_of_augmentation_are_what_a_trial_renders(change: Change) -> None:
    """Those of `preview`, which loads no TensorFlow, by the renderer of the layers."""
    smooth = keras.ops.image.resize(IMAGES[:1, :4, :4], (48, 48))
    image = np.asarray(smooth)[0].round().astype(np.uint8)
    flipped = image[:, ::-1] if "horizontal" in change.flip else image
    flipped = flipped[::-1] if "vertical" in change.flip else flipped
    shift = [change.shift[0] * 48, change.shift[1] * 48]
    transforms = frame_transforms(
        *(np.array(value, np.float32) for value in ([change.angle],)),
        np.array([False]),
        *(np.array(value, np.float32) for value in ([change.size], [shift], 47)),
    )
    view = render_views(flipped[None], transforms[:, None])[0, 0].numpy()
    view = (view + 255 * change.brightness).clip(0, 255)
    mean = view.mean(axis=(0, 1))
    expected = (mean + (view - mean) * change.contrast).clip(0, 255)
    difference = np.abs(changed(image, change) - expected)
    assert difference.max() < 3, difference.max()
    assert difference.mean() < 0.6
