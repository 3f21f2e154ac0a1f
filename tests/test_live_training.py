"""Live training: the steps of `fit` on small images, reproducible and to be continued."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pawtune.models.build import Network, make_optimizer
from pawtune.models.complete_model import compose_complete
from pawtune.models.errors import DivergedError, ModelError
from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.model_spec import Optimizer, Precision, TrainSpec
from pawtune.models.precision import precision
from pawtune.models.training.epoch_metrics import EpochResult, balancing_weights
from pawtune.models.training.fused_batch_norm import BatchNormMeasurement
from pawtune.models.training.fused_optimizers import NesterovSGD
from pawtune.models.training.live_training import (
    epoch_order,
    predict_in_batches,
    reset_randomness,
    train_batch,
    train_live,
)
from pawtune.models.training.training_state import restore_state, save_state
from tests import networks
from tests.processor import skip_without

SIZE = 32
CONV = ConvSpec(
    image_size=SIZE,
    filters=(4, 8),
    batch_norm=True,
    dropout=0.3,
    flip="horizontal",
    rotation_factor=0.1,
)
TRANSFER = TransferSpec(image_size=SIZE, flip="horizontal", dropout=0.3)
TIMES = {"seconds", "images_per_second"}


def make_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, dark and bright, in arrays that must not be written to."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype("int32")
    images = rng.integers(0, 160, (count, SIZE, SIZE, 3)) + 60 * labels[:, None, None, None]
    images = images.astype("uint8")
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


TRAIN = make_images(44, seed=0)
VALIDATION = make_images(18, seed=1)


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    from pawtune.models.backbones.frozen_backbone import load_backbone

    keras.utils.set_random_seed(0)  # random weights: the same in every run
    return load_backbone("MobileNetV2", SIZE, None)


def network_of(
    spec: ConvSpec | TransferSpec, backbone: keras.Model | None = None, seed: int = 0
) -> Network:
    return networks.network_of(
        spec, 2, seed=seed, backbone=backbone if isinstance(spec, TransferSpec) else None
    )


def train(network: Network, spec: TrainSpec, **options: Any) -> list[EpochResult]:
    return list(train_live(network, *TRAIN, *VALIDATION, spec, **options))


def scores(result: EpochResult) -> dict[str, float]:
    return {key: value for key, value in result.metrics.items() if key not in TIMES}


def test_a_net_learns_and_tells_all_about_each_epoch() -> None:
    spec = TrainSpec(epochs=8, batch_size=16, learning_rate=0.01)
    network = network_of(CONV.model_copy(update={"dropout": 0.0}))
    results = train(network, spec)
    assert [result.epoch for result in results] == list(range(1, 9))
    last = results[-1]
    assert set(last.metrics) == {
        *("loss", "accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy"),
        *("learning_rate", "seconds", "images_per_second"),
    }
    assert max(result.metrics["val_accuracy"] for result in results) > 0.9
    assert last.metrics["learning_rate"] == pytest.approx(0.01)
    logits = network.model.predict(VALIDATION[0], verbose=0)
    np.testing.assert_allclose(
        last.val_probabilities, keras.ops.softmax(logits), rtol=1e-4, atol=1e-6
    )


def test_a_net_is_scored_and_passed_on_with_the_averages_of_its_weights() -> None:
    """By momentum they would be those of the start for dozens of epochs of three batches."""
    spec = TrainSpec(epochs=2, batch_size=16, learning_rate=0.01, seed=4)
    network = network_of(CONV, seed=4)
    *_, last = train(network, spec)
    convolution = keras.Model(network.core.input, network.core.get_layer("conv_1").output)
    order = epoch_order(len(TRAIN[0]), spec.seed, epoch=2)
    batches = [convolution.predict(TRAIN[0][order[n : n + 16]], verbose=0) for n in (0, 16, 32)]
    mean, variance = (
        np.average([f(batch) for batch in batches], axis=0, weights=[16, 16, 12])
        for f in (lambda batch: batch.mean((0, 1, 2)), lambda batch: batch.var((0, 1, 2)))
    )
    norm = network.core.get_layer("norm_1")
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-3, atol=1e-4)
    model = compose_complete(CONV, 2, network.core)
    np.testing.assert_allclose(
        model.predict(VALIDATION[0], verbose=0), last.val_probabilities, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("family", "policy"),
    [("conv", "float32"), ("conv", "mixed_bfloat16"), ("conv", "mixed_float16")]
    + [("transfer", "float32")],
)
def test_a_continued_trial_equals_an_uninterrupted_one(
    family: str, policy: Precision, backbone: keras.Model, tmp_path: Path
) -> None:
    skip_without(policy)
    spec = CONV if family == "conv" else TRANSFER
    settings = TrainSpec(
        epochs=3, batch_size=16, seed=5, class_weights=True, optimizer="adamw", schedule="cosine"
    )
    whole = []
    with precision(policy):
        network, optimizer = network_of(spec, backbone), make_optimizer(settings, len(TRAIN[0]))
        for result in train_live(network, *TRAIN, *VALIDATION, settings, optimizer=optimizer):
            whole.append(result)
            if result.epoch == 1:
                save_state(network.core, optimizer, 1, tmp_path)

        keras.utils.set_random_seed(99)  # what else a process has drawn does not matter
        network, optimizer = network_of(spec, backbone), make_optimizer(settings, len(TRAIN[0]))
        assert restore_state(network.core, optimizer, tmp_path) == 1
        rest = train(network, settings, optimizer=optimizer, start_epoch=2)
    assert [result.epoch for result in rest] == [2, 3]
    for uninterrupted, continued in zip(whole[1:], rest, strict=True):
        assert scores(uninterrupted) == pytest.approx(scores(continued), rel=1e-6)
        np.testing.assert_allclose(
            uninterrupted.val_probabilities, continued.val_probabilities, rtol=1e-5
        )


GLOBAL = ConvSpec(
    image_size=2 * SIZE, filters=(4, 8), batch_norm=True, pooling="global_average", dropout=0.3,
    flip="horizontal", brightness_factor=0.2,
)  # fmt: skip


def test_the_first_epochs_may_be_on_images_of_half_the_side(tmp_path: Path) -> None:
    """The same weights learn from averages of 2 x 2 pixels, are scored whole, and continue."""
    settings = TrainSpec(epochs=4, batch_size=16, half_size_share=0.5, schedule="cosine", seed=2)
    images, val_images = (x.repeat(2, axis=1).repeat(2, axis=2) for x in (TRAIN[0], VALIDATION[0]))
    data = (images, TRAIN[1], val_images, VALIDATION[1])
    assert settings.half_size_epochs == 2

    def begin() -> tuple[Network, Any]:
        network = networks.network_of(GLOBAL, 2, seed=0, with_half=True)
        return network, make_optimizer(settings, len(images))

    network, optimizer = begin()
    assert network.half is not None
    seen = []
    for result in train_live(network, *data, settings, optimizer=optimizer):
        seen.append(result)
        np.testing.assert_allclose(
            result.val_probabilities,
            keras.ops.softmax(network.model.predict(val_images, verbose=0)),
            rtol=1e-3,
            atol=1e-5,
        )
        if result.epoch == 1:
            save_state(network.core, optimizer, 1, tmp_path)
    assert [a is b for a, b in zip(
        network.half.trainable_variables, network.model.trainable_variables, strict=True
    )] == [True] * len(network.core.trainable_variables)  # fmt: skip

    network, optimizer = begin()
    assert restore_state(network.core, optimizer, tmp_path) == 1
    rest = list(train_live(network, *data, settings, optimizer=optimizer, start_epoch=2))
    for uninterrupted, continued in zip(seen[1:], rest, strict=True):
        assert scores(uninterrupted) == pytest.approx(scores(continued), rel=1e-6)

    network, optimizer = begin()
    whole = settings.model_copy(update={"half_size_share": 0.0})
    (first, *_) = train_live(network, *data, whole, optimizer=optimizer)
    assert first.metrics["loss"] != pytest.approx(seen[0].metrics["loss"], rel=1e-6)


def test_weights_that_fit_one_size_refuse_another() -> None:
    spec = GLOBAL.model_copy(update={"pooling": "flatten"})
    with pytest.raises(ModelError, match="half_size_share needs a net that takes 32 px as well as"):
        networks.network_of(spec, 2, seed=0, with_half=True)


@pytest.mark.slow
def test_a_result_does_not_depend_on_what_the_process_did_before() -> None:
    """A fresh interpreter against this one, in which other tests have trained."""
    settings = TrainSpec(epochs=1, batch_size=16, seed=3)
    here = scores(train(network_of(CONV, seed=3), settings)[0])
    code = (
        "import json\nfrom tests.test_live_training import *\n"
        f"settings = TrainSpec.model_validate({settings.model_dump()})\n"
        "print(json.dumps(scores(train(network_of(CONV, seed=3), settings)[0])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there = json.loads(done.stdout.splitlines()[-1])
    assert here == pytest.approx(there, rel=1e-6)


@pytest.mark.slow
def test_only_the_head_of_a_transfer_model_changes(backbone: keras.Model) -> None:
    before = backbone.get_weights()
    network = network_of(TRANSFER, backbone)
    head = network.core.get_weights()
    result = train(network, TrainSpec(epochs=1, batch_size=16))[0]
    for a, b in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(head, network.core.get_weights(), strict=True))
    logits = network.model.predict(VALIDATION[0], verbose=0)
    np.testing.assert_allclose(
        result.val_probabilities, keras.ops.softmax(logits), rtol=1e-4, atol=1e-6
    )


def test_a_diverging_trial_says_so() -> None:
    network = network_of(ConvSpec(image_size=SIZE, filters=(4,), scaling="none", dense_width=8))
    spec = TrainSpec(epochs=30, batch_size=4, learning_rate=1e30, optimizer="sgd")
    with pytest.raises(DivergedError, match="must stay finite, received .* in epoch"):
        train(network, spec)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_epochs_equal_those_of_keras_fit(optimizer: Optimizer) -> None:
    spec = CONV.model_copy(update={"dropout": 0.3, "batch_norm": True})
    settings = TrainSpec(
        epochs=2, batch_size=16, optimizer=optimizer, seed=7, class_weights=True
    )  # 44 images: 2 batches and 12
    images, labels = TRAIN[0], np.where(np.arange(44) < 30, 0, TRAIN[1]).astype("int32")
    ours = list(train_live(network_of(spec), images, labels, *VALIDATION, settings))

    network = network_of(spec)
    model = network.model
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        make_optimizer(settings, len(TRAIN[0])), loss, metrics=["accuracy"], jit_compile=False
    )
    weights = dict(enumerate(balancing_weights(labels, 2).tolist()))
    for result in ours:
        order = epoch_order(44, settings.seed, result.epoch)
        reset_randomness(model, settings.seed, result.epoch)
        fitted = model.fit(
            *(images[order], labels[order], settings.batch_size),
            class_weight=weights,
            shuffle=False,
            verbose=0,
        )
        for name in ("loss", "accuracy"):
            assert result.metrics[name] == pytest.approx(fitted.history[name][0], rel=1e-4)
        BatchNormMeasurement(network.core).measure(images, order, settings.batch_size)
        logits = model.predict(VALIDATION[0], verbose=0)
        np.testing.assert_allclose(
            result.val_probabilities, keras.ops.softmax(logits), rtol=1e-3, atol=1e-5
        )


def test_a_cosine_schedule_ends_at_no_rate() -> None:
    settings = TrainSpec(epochs=4, batch_size=16, learning_rate=0.01, schedule="cosine")
    rates = [result.metrics["learning_rate"] for result in train(network_of(CONV), settings)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.005
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_loss_of_smoothed_labels_is_that_of_keras() -> None:
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    labels = np.arange(8) % 5
    inputs = keras.Input((5,))
    scale = keras.layers.Dense(5, kernel_initializer="identity")(inputs)
    optimizer = NesterovSGD(0.0)
    losses, _ = train_batch(keras.Model(inputs, scale), optimizer, logits, labels, None, 0.2)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    assert float(losses) / 8 == pytest.approx(float(expected(np.eye(5)[labels], logits)), rel=1e-5)


def test_an_epoch_takes_every_image_once_in_its_own_order() -> None:
    assert sorted(epoch_order(44, 1, 2)) == list(range(44))
    assert (epoch_order(44, 1, 2) != epoch_order(44, 1, 3)).any()
    assert (epoch_order(44, 1, 2) != epoch_order(44, 2, 2)).any()


def test_dropout_and_augmentation_start_anew_in_each_epoch() -> None:
    network = network_of(CONV)
    outputs = []
    for seed, epoch in ((0, 1), (0, 2), (1, 1), (0, 1)):
        reset_randomness(network.model, seed, epoch)
        outputs.append(np.asarray(network.model(TRAIN[0][:8], training=True)))
        network.model(TRAIN[0][:8], training=True)
    np.testing.assert_array_equal(outputs[0], outputs[3])
    assert (outputs[0] != outputs[1]).any()
    assert (outputs[0] != outputs[2]).any()
    words = [v.numpy() for v in network.model.variables if v.name == "seed_generator_state"]
    assert len({tuple(word) for word in words}) == 2  # views, dropout


def test_outputs_of_any_number_of_images() -> None:
    network = network_of(CONV)
    images = VALIDATION[0]
    expected = network.core(images, training=False)
    np.testing.assert_allclose(
        predict_in_batches(network.core, images, batch_size=7), expected, rtol=1e-4, atol=1e-6
    )
