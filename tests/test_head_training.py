"""Fast heads: the same numbers as Keras' own fit, and states to continue from."""

from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.build import make_optimizer
from pawtune.models.errors import DivergedError
from pawtune.models.families.transfer import TransferSpec, build_head
from pawtune.models.model_spec import Optimizer, Precision, TrainSpec
from pawtune.models.precision import precision
from pawtune.models.training.epoch_metrics import balancing_weights
from pawtune.models.training.head_training import apply_head, train_head
from pawtune.models.training.live_training import epoch_order, reset_randomness, train_live
from pawtune.models.training.training_state import restore_state, save_state
from tests.networks import network_of

SPEC = TransferSpec(dense_width=16, dropout=0.4)
RNG = np.random.default_rng(0)
LABELS = (np.arange(150) % 3).astype("int32")
FEATURES = RNG.normal(size=(5, 150, 24)).astype("float16")  # views of each image
FEATURES[:, np.arange(150), LABELS] += 1
VALIDATION = (FEATURES[0, 100:], LABELS[100:])
LABELS = LABELS[:100]


def views(epoch: int) -> np.ndarray:
    return FEATURES[epoch % 5, :100]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("weighted", [False, True])
def test_epochs_equal_those_of_kerass_fit(optimizer: Optimizer, weighted: bool) -> None:
    spec = TrainSpec(epochs=3, batch_size=32, optimizer=optimizer, seed=7, class_weights=weighted)
    labels = np.where(np.arange(100) < 60, 0, LABELS)  # unbalanced; 100 = 3 batches and 4
    fast = list(train_head(build_head(SPEC, 3, 24), views, labels, *VALIDATION, spec))

    head = build_head(SPEC, 3, 24)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head.compile(make_optimizer(spec, 100), loss, metrics=["accuracy"])
    weights = dict(enumerate(balancing_weights(labels, 3).tolist())) if weighted else None
    for result in fast:
        order = epoch_order(100, spec.seed, result.epoch)
        reset_randomness(head, spec.seed, result.epoch)
        fitted = head.fit(
            *(views(result.epoch)[order], labels[order], spec.batch_size),
            class_weight=weights,
            shuffle=False,
            verbose=0,
        )
        for name in ("loss", "accuracy"):
            assert result.metrics[name] == pytest.approx(fitted.history[name][0], rel=1e-5)
        logits = head.predict(VALIDATION[0], verbose=0)
        np.testing.assert_allclose(
            result.val_probabilities, keras.ops.softmax(logits), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_continued_head_equals_an_uninterrupted_one(policy: Precision, tmp_path: Path) -> None:
    spec = TrainSpec(epochs=3, batch_size=32)
    with precision(policy):  # the loss is scaled under float16, for the nets that need it
        whole = list(train_head(build_head(SPEC, 3, 24), views, LABELS, *VALIDATION, spec))
        head, optimizer = build_head(SPEC, 3, 24), make_optimizer(spec, 100)
        next(train_head(head, views, LABELS, *VALIDATION, spec, optimizer=optimizer))
        save_state(head, optimizer, 1, tmp_path)
        head, optimizer = build_head(SPEC, 3, 24, seed=9), make_optimizer(spec, 100)
        assert restore_state(head, optimizer, tmp_path) == 1
        rest = list(
            train_head(head, views, LABELS, *VALIDATION, spec, optimizer=optimizer, start_epoch=2)
        )
    assert [result.epoch for result in rest] == [2, 3]
    for uninterrupted, continued in zip(whole[1:], rest, strict=True):
        assert uninterrupted.metrics["loss"] == pytest.approx(continued.metrics["loss"])
        np.testing.assert_allclose(
            uninterrupted.val_probabilities, continued.val_probabilities, rtol=1e-5
        )


@pytest.mark.slow
def test_a_head_on_features_equals_live_training_where_nothing_is_augmented() -> None:
    from pawtune.models.backbones.frozen_backbone import load_backbone

    model = TransferSpec(image_size=32, dropout=0.3)
    spec = TrainSpec(epochs=2, batch_size=16, seed=2)
    images = RNG.integers(0, 256, (40, 32, 32, 3)).astype("uint8")
    labels = (np.arange(40) % 2).astype("int32")
    network = network_of(model, 2, seed=2, backbone=load_backbone("MobileNetV2", 32, None))
    assert network.extractor is not None
    features = network.extractor.predict(images, verbose=0)
    head = build_head(model, 2, 1280, seed=2)
    fast = train_head(head, lambda _: features, labels, features, labels, spec)
    live = train_live(network, images, labels, images, labels, spec)
    for ours, keras_own in zip(fast, live, strict=True):
        assert ours.metrics["loss"] == pytest.approx(keras_own.metrics["loss"], rel=1e-4)
        np.testing.assert_allclose(
            ours.val_probabilities, keras_own.val_probabilities, rtol=1e-3, atol=1e-5
        )


def test_a_diverging_head_says_so() -> None:
    spec = TrainSpec(epochs=30, batch_size=8, learning_rate=1e30, optimizer="sgd")
    with pytest.raises(DivergedError, match="must stay finite, received .* in epoch"):
        list(train_head(build_head(SPEC, 3, 24), views, LABELS, *VALIDATION, spec))


def test_logits_of_any_number_of_features() -> None:
    head = build_head(SPEC, 3, 24)
    expected = head.predict(VALIDATION[0], verbose=0)
    logits = apply_head(head, VALIDATION[0], batch_size=7)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
