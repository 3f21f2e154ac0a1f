"""Networks of a spec, and the complete model that is passed on."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.data_pipeline.images.decode import resize
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.baselines import BASELINES
from pawtune.models.build import Network, make_optimizer
from pawtune.models.complete_model import compose_complete
from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.precision import precision
from pawtune.models.training.fused_optimizers import FusedAdam, FusedAdamW, NesterovSGD
from tests.networks import keyed, network_of

SIZE = 32
CONV = ConvSpec(
    image_size=SIZE, filters=(4, 8), batch_norm=True, flip="horizontal", rotation_factor=0.1
)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype("uint8")


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return load_backbone("MobileNetV2", SIZE, None)


def probabilities(network: Network, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.softmax(network.model(pixels, training=False)))


@pytest.mark.parametrize(
    ("name", "trainable", "frozen"),
    [
        ("tutorial_1", 102_562, 0),
        ("tutorial_2", 2_967_650, 0),
        ("tutorial_3", 2_683_234, 0),
        ("tutorial_4", 2_562, 2_257_984),
        ("tutorial_5", 164_226, 2_257_984),
    ],
)
def test_baselines_have_the_tutorials_weights(name: str, trainable: int, frozen: int) -> None:
    spec = BASELINES[name].model
    backbone = load_backbone("MobileNetV2", 160, None) if trainable < 1e6 and frozen else None
    network = network_of(spec, 2, seed=0, backbone=backbone)
    counted = sum(int(np.prod(weight.shape)) for weight in network.model.trainable_variables)
    assert counted == trainable
    assert network.core.count_params() == trainable
    assert (backbone.count_params() if backbone else 0) == frozen


def test_augmentation_is_active_in_training_only(backbone: keras.Model) -> None:
    network = network_of(CONV.model_copy(update={"dropout": 0.0}), 2, seed=0)
    plain = network.core(PIXELS, training=False)
    np.testing.assert_array_equal(network.model(PIXELS, training=False), plain)
    # batch norm alone would answer twice alike
    views = [np.asarray(network.model(PIXELS, training=True)) for _ in range(2)]
    assert (views[0] != views[1]).any()


def test_the_parts_share_their_weights_with_the_model(backbone: keras.Model) -> None:
    network = network_of(TransferSpec(image_size=SIZE), 2, seed=0, backbone=backbone)
    assert network.extractor is not None
    network.core.get_layer("logits").bias.assign([3.0, -3.0])
    expected = network.core(network.extractor(PIXELS))
    np.testing.assert_allclose(network.model(PIXELS, training=False), expected, rtol=1e-5)


def test_a_transfer_model_needs_its_backbone() -> None:
    with pytest.raises(ValueError, match="needs its backbone, MobileNetV2, received none"):
        network_of(TransferSpec(), 2, seed=0)


@pytest.mark.parametrize("family", ["conv", "transfer", "caffe"])
def test_the_complete_model_saves_loads_safely_and_answers_alike(
    family: str, tmp_path: Path, backbone: keras.Model
) -> None:
    spec: ConvSpec | TransferSpec = CONV
    part = None
    if family == "transfer":
        spec, part = TransferSpec(image_size=SIZE, pooling="max", dense_width=8), backbone
    elif family == "caffe":  # its preprocessing swaps colours
        spec = TransferSpec(image_size=SIZE, backbone="VGG16")
        part = load_backbone("VGG16", SIZE, None)
    network = network_of(spec, 3, seed=1, backbone=part)
    complete = compose_complete(spec, 3, network.core, keyed(spec, part))
    np.testing.assert_allclose(complete(PIXELS), probabilities(network, PIXELS), atol=1e-6)
    complete.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (loaded.input_shape, loaded.input.dtype) == ((None, None, None, 3), "float32")
    np.testing.assert_allclose(loaded(PIXELS), complete(PIXELS), atol=1e-6)


@pytest.mark.parametrize("height", [20, 57])
def test_the_complete_model_resizes_as_the_data_pipeline_does(height: int) -> None:
    network = network_of(CONV, 2, seed=0)
    raw = np.random.default_rng(1).integers(0, 256, (2, height, 41, 3)).astype("uint8")
    resized = np.rint(tf.image.resize(raw, (SIZE, SIZE), "bilinear")).astype("uint8")
    answer = compose_complete(CONV, 2, network.core)(raw)
    assert answer.dtype == "float32"
    np.testing.assert_allclose(answer, probabilities(network, resized), atol=1e-6)


@pytest.mark.parametrize("shape", [(200, 150), (32, 32), (20, 90), (11, 13)])
def test_the_complete_model_resizes_by_area_as_training_did(shape: tuple[int, int]) -> None:
    network = network_of(CONV, 2, seed=0)
    complete = compose_complete(CONV, 2, network.core, resizing="area")
    raw = np.random.default_rng(4).integers(0, 256, (2, *shape, 3)).astype("uint8")
    pixels = np.stack([resize(image, CONV.image_size, "area") for image in raw])
    expected = probabilities(network, pixels)
    np.testing.assert_allclose(complete.predict(raw, verbose=0), expected, atol=1e-4)


def test_the_complete_model_takes_whole_pixels_and_floats_alike() -> None:
    """Floats from 0 to 1 were cast to black images: the same answer for each of them."""
    complete = compose_complete(CONV, 2, network_of(CONV, 2, seed=0).core)
    raw = np.random.default_rng(2).integers(0, 256, (4, 30, 41, 3)).astype("uint8")
    expected = complete.predict(raw, verbose=0)
    assert np.ptp(expected[:, 0]) > 1e-4
    floats = raw.astype("float32")
    np.testing.assert_array_equal(complete.predict(floats, verbose=0), expected)
    np.testing.assert_allclose(complete.predict(floats / 255, verbose=0), expected, atol=1e-6)
    for one, answer in zip(floats / 255, expected, strict=True):
        np.testing.assert_allclose(complete(one[None])[0], answer, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_nearly_black_image_is_not_taken_for_floats_to_1(dtype: str) -> None:
    complete = compose_complete(CONV, 2, network_of(CONV, 2, seed=0).core)
    dark = np.random.default_rng(3).integers(0, 2, (1, 30, 41, 3))
    bright = dark * 255
    answers = complete(dark.astype(dtype)), complete(bright.astype(dtype))
    assert np.abs(answers[0] - answers[1]).max() > 1e-4


@pytest.mark.parametrize("family", ["conv", "transfer"])
def test_the_complete_model_is_float32_under_every_policy(
    family: str, backbone: keras.Model
) -> None:
    spec = CONV if family == "conv" else TransferSpec(image_size=SIZE)
    part = None if family == "conv" else backbone
    reference = network_of(spec, 2, seed=0, backbone=part)
    with precision("mixed_bfloat16"):
        if part is not None:
            part = load_backbone("MobileNetV2", SIZE, None)
            part.set_weights(backbone.get_weights())
        network = network_of(spec, 2, seed=0, backbone=part)
        complete = compose_complete(spec, 2, network.core, keyed(spec, part))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    inner = [layer for part in complete.layers for layer in getattr(part, "layers", [part])]
    assert {layer.compute_dtype for layer in inner} <= {"float32", "uint8"}
    np.testing.assert_allclose(complete(PIXELS), probabilities(reference, PIXELS), atol=1e-5)


def test_optimizers_of_a_spec() -> None:
    assert isinstance(make_optimizer(TrainSpec(), 100), FusedAdam)
    adamw = make_optimizer(TrainSpec(optimizer="adamw", learning_rate=0.01), 100)
    assert isinstance(adamw, FusedAdamW)
    assert float(adamw.learning_rate) == pytest.approx(0.01)
    assert isinstance(make_optimizer(TrainSpec(optimizer="sgd"), 100), NesterovSGD)
    with precision("mixed_float16"):
        scaled = make_optimizer(TrainSpec(), 100)
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
