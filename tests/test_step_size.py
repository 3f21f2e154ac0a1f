"""Steps of an encoder: from the memory that there is, halved where it was too little."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.features import step_size
from pawtune.models.features.activations import ActivationEncoder
from pawtune.models.features.augmented_views import make_view_table
from pawtune.models.features.step_size import CPU_IMAGES, images_per_step, in_steps
from pawtune.models.features.tap_encoder import TapEncoder
from pawtune.models.features.view_encoder import ViewEncoder

SIZE = 32
IMAGES = np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE, 3)).astype(np.uint8)


def small_memory(function: Any, most: int) -> Any:
    """The function on a device that holds so many images at once."""

    def call(images: Any, *others: Any) -> Any:
        if len(images) > most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return function(images, *others)

    return call


def backbone() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, alpha=0.35, input_shape=(SIZE, SIZE, 3)
    )


@pytest.mark.parametrize(("most", "tried"), [(8, [8, 3]), (3, [8, 4, 2, 2, 2, 2, 2, 1])])
def test_a_step_is_halved_until_it_fits(most: int, tried: list[int]) -> None:
    sizes, done = [], []

    def compute(part: slice) -> None:
        items = list(range(11))[part]
        sizes.append(len(items))
        if len(items) > most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")
        done.extend(items)

    assert in_steps(compute, 11, 8) == tried[-2]
    assert sizes == tried
    assert done == list(range(11))


def test_not_even_one() -> None:
    def compute(part: slice) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        in_steps(compute, 4, 4)


def test_encoders_give_the_same_features_in_smaller_steps() -> None:
    taps = TapEncoder(backbone(), "MobileNetV2")
    expected = taps.encode(IMAGES)
    taps._pass._encode = small_memory(taps._pass._encode, 3)
    for name, features in taps.encode(IMAGES).items():
        np.testing.assert_allclose(features, expected[name], rtol=2e-3, atol=1e-3)
    assert taps._pass.images_per_step == 2
    table = make_view_table(len(IMAGES), 8)
    views = ViewEncoder(backbone(), "MobileNetV2")
    whole = views.encode(IMAGES, table)
    views._pass._encode_views = small_memory(views._pass._encode_views, 3)
    np.testing.assert_allclose(
        views.encode(IMAGES, table).average, whole.average, rtol=2e-3, atol=1e-3
    )
    assert views._pass.images_per_step == 2
    below = ActivationEncoder(backbone(), "MobileNetV2", 3)
    plain = below.encode(IMAGES)
    below._pass._encode = small_memory(below._pass._encode, 3)
    np.testing.assert_allclose(below.encode(IMAGES), plain, rtol=2e-3, atol=1e-3)
    assert below._pass.images_per_step == 2


@pytest.mark.parametrize(
    ("megabytes", "image_size", "expected"),
    [(80_000, 160, 512), (11_776, 224, 307), (1_000, 160, 51), (256, 1024, 1), (None, 160, 209)],
)
def test_the_first_guess_is_half_of_the_memory(
    megabytes: int | None, image_size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_size, "gpu_budget_mb", lambda: megabytes)
    assert images_per_step(image_size, has_gpu=True) == expected
    assert images_per_step(image_size, has_gpu=False) == CPU_IMAGES
