"""Feature banks: a folded backbone is the same function, and shards make one bank."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.errors import ModelError
from pawtune.models.families.transfer import TransferSpec, build_extractor, build_head
from pawtune.models.features.augmented_views import ViewSampler, make_view_table
from pawtune.models.features.feature_bank import FeatureBank
from pawtune.models.features.view_encoder import ViewEncoder
from pawtune.models.model_spec import TrainSpec
from pawtune.models.training.head_training import train_head
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.shared_work.pixels import DEVICES, device_of
from tests.processor import skip_without

SIZE = 32
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, SIZE, SIZE, 3)).astype(np.uint8)
TABLE = make_view_table(len(IMAGES), num_views=8)


def settle_batch_norms(model: keras.Model) -> keras.Model:
    """Give batch norms statistics that fit: with those of new layers the signal dies out."""
    norms = [item for item in model.layers if isinstance(item, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # takes over the statistics of the next batch
        width = norm.moving_mean.shape
        if norm.scale:
            norm.gamma.assign(RNG.uniform(0.5, 1.5, width))
        norm.beta.assign(RNG.normal(0, 0.3, width))
    model(RNG.uniform(-1, 1, (32, *model.input_shape[1:])).astype(np.float32), training=True)
    model.trainable = False
    return model


def tiny_backbone(size: int = SIZE) -> keras.Model:
    keras.utils.set_random_seed(0)
    return settle_batch_norms(
        keras.applications.MobileNetV2(
            include_top=False, weights=None, alpha=0.35, input_shape=(size, size, 3)
        )
    )


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return tiny_backbone()


@pytest.fixture(scope="module")
def encoder(backbone: keras.Model) -> Iterator[ViewEncoder]:
    return ViewEncoder(backbone, "MobileNetV2")


@pytest.fixture(scope="module")
def bank(encoder: ViewEncoder) -> FeatureBank:
    return encoder.encode(IMAGES, TABLE)


# --- folding -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 45])  # even and odd sides are padded differently
def test_a_folded_backbone_is_the_same_function(size: int) -> None:
    backbone = tiny_backbone(size)
    folded = fold_backbone(backbone)
    images = RNG.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    expected = np.asarray(backbone(images, training=False))
    assert expected.std() > 0.1
    assert np.asarray(folded(images)) == pytest.approx(expected, abs=1e-3)
    kinds = {type(layer).__name__ for layer in folded.layers}
    assert not kinds & {"BatchNormalization", "ZeroPadding2D"}


def odd_model() -> keras.Model:
    """Everything that must not be folded, or with care."""
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, use_bias=True)(inputs)
    x = layers.BatchNormalization(scale=False)(x)  # a bias before the norm, and no gamma
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ZeroPadding2D(3)(x)  # more than padding="same" adds
    x = layers.Conv2D(4, 3, strides=2)(x)
    both = layers.Conv2D(4, 1)(x)  # two followers: the norm is one of them only
    y = layers.BatchNormalization()(both)
    z = layers.Conv2D(4, 1, activation="relu")(both)  # the activation lies between
    z = layers.BatchNormalization()(z)
    return settle_batch_norms(keras.Model(inputs, layers.Add()([both, y + z])))


def test_what_is_not_plain_convolution_and_norm_stays() -> None:
    model = odd_model()
    folded = fold_backbone(model)
    images = RNG.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    expected = np.asarray(model(images, training=False))
    assert np.asarray(folded(images, training=False)) == pytest.approx(expected, abs=1e-4)
    kinds = [type(layer).__name__ for layer in folded.layers]
    assert kinds.count("BatchNormalization") == 2
    assert kinds.count("ZeroPadding2D") == 1


def test_what_is_read_from_outside_stays() -> None:
    """A convolution that is used twice, and one that the model gives out besides its norm."""
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 1)
    last = keras.layers.Conv2D(4, 1)(inputs)
    norms = [keras.layers.BatchNormalization() for _ in range(3)]
    twice = keras.Model(inputs, norms[1](shared(norms[0](shared(inputs)))))
    shown = keras.Model(inputs, [last, norms[2](last)])
    images = RNG.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    for model in map(settle_batch_norms, (twice, shown)):
        given = [keras.ops.convert_to_numpy(part(images)) for part in (model, fold_backbone(model))]
        np.testing.assert_allclose(given[1], given[0], atol=1e-5)


def test_low_precision_starts_after_the_first_convolutions(backbone: keras.Model) -> None:
    folded = fold_backbone(backbone, "mixed_bfloat16")
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    policies = [layer.compute_dtype for layer in folded.layers if isinstance(layer, kinds)]
    assert policies[:4] == ["float32", "float32", "float32", "bfloat16"]
    assert set(policies[3:]) == {"bfloat16"}


# --- encoding ------------------------------------------------------------------------------


def test_plain_views_are_what_the_extractor_of_a_trial_gives(
    backbone: keras.Model, bank: FeatureBank
) -> None:
    flips = [IMAGES, IMAGES[:, :, ::-1], IMAGES[:, ::-1, ::-1]]
    for pooling in ("average", "max"):
        spec = TransferSpec.model_validate({"image_size": SIZE, "pooling": pooling})
        extract = build_extractor(spec, backbone)
        for view, pixels in enumerate(flips):
            expected = np.asarray(extract(pixels.astype(np.float32)))
            assert bank.features(pooling)[:, view] == pytest.approx(expected, abs=4e-3)


def test_shards_make_the_bank_of_one_piece(encoder: ViewEncoder, bank: FeatureBank) -> None:
    shards = [
        encoder.encode(IMAGES[start:stop], TABLE.rows(start, stop))
        for start, stop in [(0, 3), (3, 4), (4, 10)]
    ]
    average = np.concatenate([shard.average for shard in shards])
    maximum = np.concatenate([shard.maximum for shard in shards])
    # Batches of other sizes may round differently.
    assert average == pytest.approx(bank.average, abs=2e-3)
    assert maximum == pytest.approx(bank.maximum, abs=4e-3)
    # Views and images differ by much more than that.
    for axis in (0, 1):
        assert np.abs(np.diff(bank.average.astype(np.float32), axis=axis)).mean() > 0.02


def test_bfloat16_features_are_near_float32_ones(backbone: keras.Model, bank: FeatureBank) -> None:
    skip_without("mixed_bfloat16")
    shard = ViewEncoder(backbone, "MobileNetV2", "mixed_bfloat16").encode(IMAGES, TABLE)
    noise = np.abs(shard.average.astype(np.float32) - bank.average).mean()
    assert 0 < noise < 0.2 * bank.average.astype(np.float32).std()


def test_bfloat16_features_of_photographs_are_near_float32_ones(test_data: Path) -> None:
    skip_without("mixed_bfloat16")
    # Trained weights are what low precision is hard on: random ones never show it.
    weights = test_data / "mobilenet_v2_1.0_224_no_top.h5"
    with zipfile.ZipFile(test_data / "cats_and_dogs_filtered.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if "/train/" in name][10:2000:250]
        photographs = [
            Image.open(io.BytesIO(archive.read(name))).convert("RGB").resize((160, 160))
            for name in names
            if name.endswith(".jpg")
        ]
    images = np.stack([np.asarray(photograph) for photograph in photographs])
    backbone = load_backbone("MobileNetV2", 160, weights)
    table = make_view_table(len(images), num_views=8)
    exact, fast = (
        ViewEncoder(backbone, "MobileNetV2", policy).encode(images, table)
        for policy in ("float32", "mixed_bfloat16")
    )
    for a, b in ((exact.average, fast.average), (exact.maximum, fast.maximum)):
        noise = np.abs(a.astype(np.float32) - b).mean()
        assert noise < 0.06 * a.astype(np.float32).std(axis=(0, 1)).mean()


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (IMAGES[:3], r"\(3, 32, 32, 3\) uint8"),
        (IMAGES[:, :16, :16], r"\(10, 16, 16, 3\) uint8"),
        (IMAGES.astype(np.float32), r"\(10, 32, 32, 3\) float32"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    encoder: ViewEncoder, images: NDArray[np.generic], received: str
) -> None:
    with pytest.raises(ModelError, match=rf"must be \(10, 32, 32, 3\) uint8, received {received}"):
        encoder.encode(images, TABLE)  # type: ignore[arg-type]


def test_a_head_trains_from_a_bank(bank: FeatureBank) -> None:
    labels = (np.arange(10) % 2).astype(np.int32)
    features = bank.features("max")
    sampler = ViewSampler(bank.table, "horizontal", 0.5)
    results = train_head(
        build_head(TransferSpec(), 2, features.shape[-1]),
        lambda epoch: sampler.features_for_epoch(features, epoch),
        labels,
        features[:, 0],
        labels,
        TrainSpec(epochs=2),
    )
    assert [result.epoch for result in results] == [1, 2]


@pytest.mark.parametrize(
    ("kinds", "device"),
    [
        ([], "gpu"),
        (["V100", "T4"], "gpu, float32"),
        (["A100", "H100"], "gpu, TF32"),
        (["V100", "A100"], "gpu"),
    ],
)
def test_values_of_another_arithmetic_are_not_taken(kinds: list[str], device: str) -> None:
    nodes = [{"Alive": True, "Resources": {"GPU": 1.0}}]
    nodes += [
        {"Alive": True, "Resources": {"GPU": 1.0, f"accelerator_type:{kind}": 1.0}}
        for kind in kinds
    ]
    assert device_of(ResourcePlan(1, 0.5, 2), nodes) == device
    assert device in DEVICES
    assert device_of(ResourcePlan(1, 0, 2), nodes) == "cpu"
