"""Augmentation layers: what they change, what they leave, in which precision."""

import keras
import numpy as np
import pytest

from pawtune.models.augmentation import augmentation_layers
from pawtune.models.model_spec import Flip
from pawtune.models.precision import precision

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 3)).astype("float32")


def augment(layers: list[keras.layers.Layer], training: bool = True) -> np.ndarray:
    x = IMAGES
    for layer in layers:
        x = layer(x, training=training)
    return np.asarray(x)


def test_nothing_asked_adds_no_layer() -> None:
    assert augmentation_layers("none", 0.0, seed=0) == []


@pytest.mark.parametrize(
    ("flip", "flipped"),
    [
        ("horizontal", IMAGES[:, :, ::-1]),
        # Keras draws one coin for both axes.
        ("horizontal_and_vertical", IMAGES[:, ::-1, ::-1]),
    ],
)
def test_about_half_of_the_images_are_flipped(flip: Flip, flipped: np.ndarray) -> None:
    views = augment(augmentation_layers(flip, 0.0, seed=1))
    is_plain = (views == IMAGES).all(axis=(1, 2, 3))
    is_flipped = (views == flipped).all(axis=(1, 2, 3))
    assert (is_plain ^ is_flipped).all()
    assert 20 <= is_flipped.sum() <= 44


@pytest.mark.parametrize("flip", ["none", "horizontal", "horizontal_and_vertical"])
def test_views_are_those_of_kerass_layers(flip: Flip) -> None:
    """Each view against `RandomFlip` done by hand and `RandomRotation` at the drawn angle."""
    photo = keras.ops.image.resize(IMAGES[:, :3, :3], (32, 32))
    [layer] = augmentation_layers(flip, 0.4, seed=1)
    views = np.asarray(layer(photo, training=True))
    [again] = augmentation_layers(flip, 0.4, seed=1)
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
        [layer] = augmentation_layers(flip, factor, seed=2)
        angles, mirrored = (np.asarray(drawn) for drawn in layer.draw(4000))
        turned = np.zeros(4000, bool)
        if flip == "horizontal_and_vertical":
            [same] = augmentation_layers("none", factor, seed=2)
            turned = np.asarray(same.draw(4000)[0]) != angles
            angles = angles - np.pi * turned
        below = (angles[:, None] <= grid).mean(axis=0)
        assert np.abs(below - np.linspace(0, 1, 101)).max() < 0.03
        assert 0.47 < mirrored.mean() < 0.53 if flip == "horizontal" else not mirrored.any()
        assert 0.47 < turned.mean() < 0.53 if "vertical" in flip else not turned.any()


@pytest.mark.parametrize("flip", ["horizontal", "horizontal_and_vertical"])
def test_with_hardly_a_rotation_views_are_the_flips(flip: Flip) -> None:
    flipped = IMAGES[:, :, ::-1] if flip == "horizontal" else IMAGES[:, ::-1, ::-1]
    views = augment(augmentation_layers(flip, 1e-7, seed=1))
    is_plain = np.abs(views - IMAGES).max(axis=(1, 2, 3)) < 0.01
    is_flipped = np.abs(views - flipped).max(axis=(1, 2, 3)) < 0.01
    assert (is_plain ^ is_flipped).all()
    assert 20 <= is_flipped.sum() <= 44


def test_outside_training_pixels_pass_through() -> None:
    layers = augmentation_layers("horizontal_and_vertical", 0.9, seed=1)
    np.testing.assert_array_equal(augment(layers, training=False), IMAGES)


def test_views_derive_from_the_seed() -> None:
    first, again, other = (
        augment(augmentation_layers("horizontal", 0.3, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_low_precision_does_not_blur_views() -> None:
    exact = augment(augmentation_layers("horizontal", 0.3, seed=1))
    with precision("mixed_bfloat16"):
        layers = augmentation_layers("horizontal", 0.3, seed=1)
    np.testing.assert_array_equal(augment(layers), exact)
