"""Augmentation layers: what they change, what they leave, in which precision."""

import keras
import numpy as np
import pytest

from models.augmentation import augmentation_layers
from models.precision import precision
from models.spec import Flip

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


def test_rotation_is_kerass_own() -> None:
    [layer] = augmentation_layers("none", 0.25, seed=1)
    config = layer.get_config()
    assert (config["fill_mode"], config["interpolation"]) == ("reflect", "bilinear")
    assert tuple(config["factor"]) == (-0.25, 0.25)  # of a full turn
    assert (augment([layer]) != IMAGES).any(axis=(1, 2, 3)).all()


def test_outside_training_pixels_pass_through() -> None:
    layers = augmentation_layers("horizontal_and_vertical", 0.9, seed=1)
    assert len(layers) == 2
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
