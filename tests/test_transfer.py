"""Backbones: Keras' own preprocessing and features, and what is said where one cannot be had."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.backbones.backbone_weights import BACKBONES
from pawtune.models.backbones.frozen_backbone import load_backbone, preprocess
from pawtune.models.errors import ModelError
from pawtune.models.families.transfer import TransferSpec, build_extractor, build_head
from pawtune.models.precision import precision

REAL_WEIGHTS = "mobilenet_v2_1.0_224_no_top.h5"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return load_backbone("MobileNetV2", 32, None)


@pytest.mark.parametrize("name", BACKBONES)
def test_preprocessing_is_kerass_own(name: str) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, preprocess(name, inputs))
    module = inspect.getmodule(getattr(keras.applications, name))
    expected = module.preprocess_input(PIXELS[:, :8, :8].copy())  # type: ignore[union-attr]
    np.testing.assert_allclose(model(PIXELS[:, :8, :8]), expected, rtol=1e-5, atol=1e-4)


def test_preprocessing_stays_exact_in_low_precision() -> None:
    with precision("mixed_bfloat16"):
        inputs = keras.Input((8, 8, 3))
        model = keras.Model(inputs, preprocess("MobileNetV2", inputs))
    outputs = model(PIXELS[:, :8, :8])
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, PIXELS[:, :8, :8] / 127.5 - 1, atol=1e-6)


def test_a_backbone_is_frozen_and_found_in_any_case(backbone: keras.Model) -> None:
    assert backbone.count_params() == 2_257_984
    assert backbone.trainable_variables == []
    assert load_backbone("mobilenetv2", 32, None).count_params() == 2_257_984


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_features_are_pooled_maps_of_preprocessed_pixels(
    backbone: keras.Model, pooling: str
) -> None:
    spec = TransferSpec.model_validate({"image_size": 32, "pooling": pooling})
    maps = np.asarray(backbone(PIXELS / 127.5 - 1, training=False))
    expected = maps.mean(axis=(1, 2)) if pooling == "average" else maps.max(axis=(1, 2))
    features = build_extractor(spec, backbone)(PIXELS)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_heads_have_the_tutorials_weights() -> None:
    assert build_head(TransferSpec(), 2, 1280).count_params() == 2_562
    assert build_head(TransferSpec(dense_width=128), 2, 1280).count_params() == (
        1281 * 128 + 129 * 2
    )


def test_heads_are_float32_under_every_policy() -> None:
    with precision("mixed_bfloat16"):
        head = build_head(TransferSpec(dense_width=8), 2, 16)
    assert {layer.compute_dtype for layer in head.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_real_weights_fit_every_image_size(test_data: Path) -> None:
    small = load_backbone("MobileNetV2", 32, test_data / REAL_WEIGHTS)
    large = load_backbone("MobileNetV2", 96, test_data / REAL_WEIGHTS)
    for a, b in zip(small.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_backbone_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match=r"received 'MobilNetV2'; did you mean 'MobileNetV2'\?"):
        load_backbone("MobilNetV2", 160, None)
    with pytest.raises(ModelError, match=r"received 'qqq'; give one of ConvNeXtBase, .*Xception"):
        load_backbone("qqq", 160, None)


def test_an_image_too_small_for_the_backbone_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^Xception cannot take images of 48 px .*at least 71x71"):
        load_backbone("Xception", 48, None)


@pytest.mark.parametrize("name", ["no_weights.h5", "no_weights.txt"])
def test_an_unreadable_weights_file_is_told_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("These are no weights.\nNor is this.\n")
    with pytest.raises(ModelError, match="does not hold the weights of MobileNetV2") as caught:
        load_backbone("MobileNetV2", 32, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert str(caught.value).endswith("publishes for MobileNetV2, or leave it out")
    assert "\n" not in str(caught.value)


def test_weights_of_another_backbone_are_refused(tmp_path: Path, backbone: keras.Model) -> None:
    file = tmp_path / "other.weights.h5"
    backbone.save_weights(file)
    with pytest.raises(ModelError, match=r"other\.weights\.h5 does not hold the weights of Mobile"):
        load_backbone("MobileNet", 32, file)
