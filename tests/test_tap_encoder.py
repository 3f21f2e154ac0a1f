"""models.features.tap_encoder: pooled outputs of all blocks, the same however images are cut up."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.backbones.frozen_backbone import load_backbone, preprocess
from pawtune.models.errors import ModelError
from pawtune.models.features.light_views import LightAugmentation, round_transforms
from pawtune.models.features.tap_encoder import TapEncoder
from tests.networks import set_batch_norms

SIDE = 64


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone(images: np.ndarray) -> keras.Model:
    """Random weights, with batch norms that know these images: else features would vanish."""
    keras.utils.set_random_seed(0)
    backbone = load_backbone("MobileNetV2", SIDE, None)
    set_batch_norms(backbone, images / np.float32(127.5) - 1)
    return backbone


@pytest.fixture(scope="module")
def encoder(backbone: keras.Model) -> TapEncoder:
    return TapEncoder(backbone, "MobileNetV2")


def test_the_last_layer_is_pooled_as_keras_does(
    backbone: keras.Model, encoder: TapEncoder, images: np.ndarray
) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    whole = keras.Model(inputs, backbone(preprocess("MobileNetV2", inputs)))
    maps = whole.predict(images.astype("float32"), verbose=0)
    features = encoder.encode(images)
    scale = np.abs(maps).max()
    np.testing.assert_allclose(features["average"], maps.mean(axis=(1, 2)), atol=2e-3 * scale)
    np.testing.assert_allclose(features["maximum"], maps.max(axis=(1, 2)), atol=2e-3 * scale)
    assert features["inner"].shape == (21, 1504)  # 17 blocks before the last
    assert features["deviations"].shape == (21, 1504)
    assert {array.dtype for array in features.values()} == {np.dtype("float16")}


def test_an_image_has_the_same_features_in_any_shard(
    encoder: TapEncoder, images: np.ndarray
) -> None:
    whole = encoder.encode(images)
    parts = [encoder.encode(images[:5]), encoder.encode(images[5:])]
    for name, array in whole.items():
        cut = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(array, cut, rtol=2e-3, atol=1e-3)


def test_a_view_that_changes_nothing_has_the_plain_features(
    encoder: TapEncoder, images: np.ndarray
) -> None:
    still = LightAugmentation(max_degrees=0, max_zoom=0, max_shift=0, mirrored=0)
    transforms = round_transforms(1, 0, len(images), SIDE, seed=0, augmentation=still)
    plain, viewed = encoder.encode(images), encoder.encode(images, transforms)
    for name in plain:
        np.testing.assert_allclose(plain[name], viewed[name], rtol=5e-3, atol=5e-3)
    turned = encoder.encode(images, round_transforms(1, 0, len(images), SIDE, seed=0))
    assert not np.allclose(plain["average"], turned["average"], atol=5e-3)


def test_images_of_another_size_are_refused(encoder: TapEncoder, images: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"must be \(21, 64, 64, 3\) uint8, received \(21, 32"):
        encoder.encode(images[:, :32, :32])


def test_a_worker_that_is_ended_leaves_no_code_in_the_temporary_folder(tmp_path: Path) -> None:
    """TensorFlow's AutoGraph writes what it rewrites to files, which a killed process leaves."""
    script = """
import os
import numpy as np
from pawtune.models.augmentation import _renderer
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.features.light_views import round_transforms
from pawtune.models.features.tap_encoder import TapEncoder
images = np.zeros((2, 32, 32, 3), np.uint8)
encoder = TapEncoder(load_backbone("MobileNetV2", 32, None), "MobileNetV2")
encoder.encode(images)
encoder.encode(images, round_transforms(1, 0, 2, 32, seed=0))
_renderer()(images, np.zeros((2, 1, 6), np.float32))
os._exit(0)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    assert list(tmp_path.glob("*.py")) == []
