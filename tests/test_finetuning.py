"""Fine-tuning above a cut: the same from kept activations as live, and the same from its file."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import find_block_ends, split_at
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.backbones.taps import Taps, choose_taps, tap_tensors
from pawtune.models.backbones.tuned_top import build_tuned
from pawtune.models.complete_model import compose_complete
from pawtune.models.errors import DivergedError, ModelError
from pawtune.models.families.family import Backbone
from pawtune.models.families.finetune import FinetuneSpec
from pawtune.models.features.activations import (
    ActivationEncoder,
    KeptActivations,
    LiveActivations,
)
from pawtune.models.features.light_views import round_transforms
from pawtune.models.training.epoch_metrics import EpochResult
from pawtune.models.training.finetuning import (
    TuningRecipe,
    finetune,
    make_optimizer,
    rate_factors,
    score_start,
    views_of_epoch,
)
from pawtune.models.training.fused_optimizers import FusedAdamW, warmup_cosine
from pawtune.models.training.solved_heads import decompose, solve_logistic
from tests.networks import set_batch_norms

SIZE = 48
CUT = 13  # of MobileNetV2's 18 blocks
CLASSES = 3
RECIPE = TuningRecipe(epochs=3, batch_size=8, num_rounds=3, learning_rate=1e-3)

rng = np.random.default_rng(0)
LABELS = rng.permutation(np.arange(28, dtype=np.int32) % CLASSES)
# Another colour for each class, so that there is something to learn.
IMAGES = rng.integers(0, 120, (28, SIZE, SIZE, 3), dtype=np.uint8)
IMAGES[np.arange(28), :, :, LABELS] += 100
HEAD = rng.normal(size=(1280, CLASSES)) / 40, np.array([0.1, 0, -0.1])


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    """Random weights with statistics of our images: a new MobileNetV2's features hardly differ."""
    keras.utils.set_random_seed(0)
    backbone = load_backbone("MobileNetV2", SIZE, None)
    set_batch_norms(backbone, IMAGES.astype("float32") / 127.5 - 1)
    return backbone


@pytest.fixture(scope="module")
def encoder(backbone: keras.Model) -> ActivationEncoder:
    return ActivationEncoder(backbone, "MobileNetV2", CUT)


@pytest.fixture(scope="module")
def rounds(encoder: ActivationEncoder) -> list[NDArray[np.float16]]:
    views = [round_transforms(number, 0, len(IMAGES), SIZE, seed=4) for number in (1, 2)]
    return [encoder.encode(IMAGES), *(encoder.encode(IMAGES, view) for view in views)]


def new_network(backbone: keras.Model, recipe: TuningRecipe = RECIPE) -> keras.Model:
    _, above = split_at(fold_backbone(backbone), CUT)
    return build_tuned(above, *HEAD, 0.2, recipe.seed)


def complete(network: keras.Model, backbone: keras.Model) -> keras.Model:
    """The complete model of a network with the cut at block 13."""
    end = find_block_ends(fold_backbone(backbone))[CUT - 1]
    spec = FinetuneSpec(image_size=SIZE, share_above=end.share_above)
    return compose_complete(spec, CLASSES, network, {Backbone("MobileNetV2", SIZE): backbone})


def train(
    network: keras.Model, source: KeptActivations | LiveActivations, plain: NDArray[np.float16]
) -> list[EpochResult]:
    return list(finetune(network, source, LABELS, plain[:9], LABELS[:9], RECIPE))


@pytest.mark.slow
def test_kept_activations_train_as_live_ones_do_and_the_file_predicts_as_training_did(
    backbone: keras.Model,
    encoder: ActivationEncoder,
    rounds: list[NDArray[np.float16]],
    tmp_path: Path,
) -> None:
    network = new_network(backbone)
    kept = train(network, KeptActivations(rounds), rounds[0])
    live = train(new_network(backbone), LiveActivations(encoder, IMAGES, 3, seed=4), rounds[0])
    assert [result.epoch for result in kept] == [1, 2, 3]
    for one, other in zip(kept, live, strict=True):
        for key in ("loss", "accuracy", "val_loss"):
            assert one.metrics[key] == pytest.approx(other.metrics[key], abs=1e-3)
    # From 1.1, which is chance, to 0.9 after an epoch and 0.5 after three.
    assert kept[-1].metrics["val_loss"] < kept[0].metrics["val_loss"] - 0.1
    assert kept[-1].metrics["learning_rate"] < 1e-3 * RECIPE.learning_rate

    file = tmp_path / "tuned.keras"
    complete(network, backbone).save(file)
    reloaded = keras.saving.load_model(file)
    assert reloaded.input_shape == (None, None, None, 3)
    np.testing.assert_allclose(
        reloaded.predict(IMAGES[:9], verbose=0), kept[-1].val_probabilities, atol=2e-3
    )
    uncut = complete(new_network(backbone), backbone)
    moved = np.abs(uncut.predict(IMAGES[:9], verbose=0) - kept[-1].val_probabilities).max()
    assert moved > 0.02  # training changed far more than the tolerance hides


@pytest.mark.slow
def test_an_epoch_depends_on_seed_and_state_alone(
    backbone: keras.Model, rounds: list[NDArray[np.float16]]
) -> None:
    source = KeptActivations(rounds)
    whole = new_network(backbone)
    expected = train(whole, source, rounds[0])[-1].metrics["loss"]
    continued = new_network(backbone)
    optimizer = make_optimizer(continued, RECIPE, len(LABELS))
    parts = []
    for start in (1, 2, 3):
        epochs = finetune(
            continued,
            source,
            LABELS,
            rounds[0][:9],
            LABELS[:9],
            RECIPE,
            optimizer=optimizer,
            start_epoch=start,
        )
        parts.append(next(epochs).metrics["loss"])
    assert parts[-1] == expected
    for one, other in zip(whole.get_weights(), continued.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_solved_head_is_where_training_starts(
    backbone: keras.Model, rounds: list[NDArray[np.float16]]
) -> None:
    network = new_network(backbone)
    maps = fold_backbone(backbone)(IMAGES[:4].astype("float32") / 127.5 - 1, training=False)
    expected = np.asarray(maps).mean((1, 2)) @ HEAD[0] + HEAD[1]
    logits = network(rounds[0][:4].astype("float32"), training=False)
    np.testing.assert_allclose(logits, expected, atol=5e-3)
    first = score_start(network, expected, LABELS[:4], rounds[0][:4], LABELS[:4])
    assert (first.epoch, first.metrics["learning_rate"]) == (1, 0)
    np.testing.assert_allclose(first.val_probabilities, keras.ops.softmax(logits), atol=1e-5)
    assert first.metrics["accuracy"] == first.metrics["val_accuracy"]


def test_the_epoch_that_diverged_is_named_by_its_number_in_the_trial(
    backbone: keras.Model, rounds: list[NDArray[np.float16]]
) -> None:
    network = new_network(backbone)
    network.layers[-1].kernel.assign(np.full(network.layers[-1].kernel.shape, np.nan))
    epochs = finetune(
        network, KeptActivations(rounds), LABELS, rounds[0][:9], LABELS[:9], RECIPE, epochs_before=1
    )
    with pytest.raises(DivergedError, match="received nan in epoch 2: try a learning_rate below"):
        next(epochs)


@pytest.mark.parametrize("taps", ["all", "all_moments"])
def test_a_head_on_all_trained_blocks_starts_where_it_was_solved_and_learns(
    backbone: keras.Model, rounds: list[NDArray[np.float16]], taps: Taps
) -> None:
    folded = fold_backbone(backbone)
    ends = find_block_ends(folded)
    chosen = choose_taps(taps, ends[CUT - 1 :])
    tensors = tap_tensors(folded)
    seen = keras.Model(folded.input, [tensors[tap] for tap in chosen])
    features = np.concatenate(seen(IMAGES.astype("float32") / 127.5 - 1), axis=1)
    solved = decompose(features, features[:9])
    head = solve_logistic(solved, LABELS, CLASSES, 0.1)
    _, above = split_at(folded, CUT)
    network = build_tuned(
        above,
        head.kernel,
        head.bias,
        ends=ends[CUT - 1 :],
        taps=chosen,
        mean=solved.mean,
        scale=solved.scale,
    )
    logits = network(rounds[0].astype("float32"), training=False)
    np.testing.assert_allclose(logits, head.train_logits, atol=2e-2)
    factors = rate_factors(network, 0.5)
    assert (max(factors), min(factors)) == (1, 0.5**5)
    frozen = [weight.numpy() for weight in network.get_layer("standard").weights]
    results = train(network, KeptActivations(rounds), rounds[0])
    assert results[-1].metrics["loss"] < results[0].metrics["loss"]
    for weight, before in zip(network.get_layer("standard").weights, frozen, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_rates_fall_from_block_to_block(backbone: keras.Model) -> None:
    network = new_network(backbone)
    factors = dict(
        zip((w.path for w in network.trainable_variables), rate_factors(network, 0.5), strict=True)
    )
    by_block = {
        "logits": 1,
        "Conv_1": 0.5,
        "block_16_project": 0.25,
        "block_16_expand": 0.25,
        "block_15_depthwise": 0.125,
        "block_13_expand": 0.5**5,
    }
    for layer, factor in by_block.items():
        found = {value for path, value in factors.items() if path.split("/")[-2] == layer}
        assert found == {factor}
    assert not any("BN" in path for path in factors)  # all folded: nothing a batch could spoil


def test_adamw_as_computed_by_hand() -> None:
    kernel, bias = keras.Variable([[1.0, -2.0]]), keras.Variable([3.0])
    optimizer = FusedAdamW(0.1, weight_decay=0.5, factors=(0.1, 1.0))
    optimizer.build([kernel, bias])
    optimizer.apply([tf.constant([[2.0, -4.0]]), tf.constant([1.0])], [kernel, bias])
    # Adam's first step is its rate, in the gradient's direction.
    np.testing.assert_allclose(kernel, [[1 - 0.01 * 0.5 - 0.01, -2 + 0.01 * 1.0 + 0.01]], rtol=1e-5)
    np.testing.assert_allclose(bias, [3 - 0.1], rtol=1e-5)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [float(warmup_cosine(1.0, 10, 4)(step)) for step in range(11)]
    expected = [0, 0.25, 0.5, 0.75, *(0.5 + 0.5 * np.cos(np.pi * np.arange(7) / 6))]
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_every_view_of_an_image_has_its_turn() -> None:
    recipe = TuningRecipe(num_rounds=4, epochs=8)
    views = np.stack([views_of_epoch(100, recipe, epoch) for epoch in range(1, 9)])
    for image in views.T:
        np.testing.assert_array_equal(np.bincount(image, minlength=4), [2] * 4)
    np.testing.assert_array_equal(np.bincount(views[0]), [25] * 4)
    assert (views_of_epoch(100, TuningRecipe(num_rounds=1), 3) == 0).all()


def test_rounds_are_read_where_they_lie(tmp_path: Path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((5, 2, 2, 1), number, np.float16))
    kept = KeptActivations([np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in range(3)])
    batch = kept(np.array([4, 0, 2, 4]), np.array([2, 0, 0, 1]))
    assert batch.dtype == np.float16
    assert batch[:, 0, 0, 0].tolist() == [2, 0, 0, 1]


def test_a_head_of_another_width_is_refused(backbone: keras.Model) -> None:
    _, above = split_at(fold_backbone(backbone), CUT)
    with pytest.raises(ModelError, match=r"1280 features .* received a kernel \(64, 3\)"):
        build_tuned(above, np.zeros((64, 3)), np.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_decay": 1.5}, "layer_decay is a number from 0 to 1, received 1.5"),
        ({"epochs": 0}, "epochs is at least 1, received 0"),
        ({"learning_rate": -1.0}, "above 0 .* received -1.0"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TuningRecipe(**change)  # type: ignore[arg-type]
