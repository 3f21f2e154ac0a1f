"""A greedy soup: which trials may be averaged, who stays in, and what the average predicts."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest
from scipy.special import softmax

from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.family import Backbone, CoreShape
from pawtune.models.families.finetune import FinetuneSpec
from pawtune.models.families.table import core_shape_of
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.out_of_fold.calibration import mean_of_logits
from pawtune.models.training.solved_trial import build_linear
from pawtune.search.results.ensembles.soup import divide_weights, greedy_soup, sum_weights
from pawtune.search.storage.records import EnsembleRecord


def never(backbone: Backbone) -> keras.Model:
    raise AssertionError(f"{backbone} is not needed")


def head(**given: object) -> CoreShape | None:
    return core_shape_of(TransferSpec.model_validate({"image_size": 32, **given}), never)


def test_linear_heads_on_the_same_features_are_alike_however_they_were_found() -> None:
    ridge = head(head="ridge", taps="average", regularisation=0.1)
    assert ridge is not None
    assert ridge.is_linear
    assert head(head="logistic", taps="average") == ridge
    assert head(pooling="average", dropout=0.5) == ridge
    assert head(pooling="max") == head(head="ridge", taps="maximum") != ridge
    assert head(head="ridge", taps="top_moments") != ridge
    assert head(head="ridge", taps="average", image_size=48) != ridge
    assert head(head="ridge", taps="average", backbone="VGG16") != ridge


def test_nets_from_random_weights_are_alike_to_none() -> None:
    assert head(dense_width=64) is None
    assert core_shape_of(ConvSpec(image_size=32, filters=(4,)), never) is None


def test_tuned_tops_are_alike_above_one_block_with_one_kind_of_features() -> None:
    backbone = load_backbone("MobileNetV2", 32, None)

    def top(share: float, features: str = "moments") -> CoreShape | None:
        given = {"image_size": 32, "share_above": share, "head_features": features}
        return core_shape_of(FinetuneSpec.model_validate(given), lambda _: backbone)

    first = top(0.25)
    assert first is not None
    assert not first.is_linear
    assert top(0.2501) == first
    assert top(0.6) != first
    assert top(0.25, "last") != first


def test_the_mean_of_linear_heads_predicts_the_mean_of_their_logits() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 7)).astype("float32")
    weights = [[rng.normal(size=(7, 3)), rng.normal(size=3)] for _ in range(3)]
    predictions = []
    for one in weights:
        core = build_linear(7, 3)
        core.set_weights(one)
        predictions.append(softmax(core.predict(features, verbose=0), axis=1))
    first, second, third = weights
    core.set_weights(divide_weights(sum_weights(sum_weights(first, second), third), 3))
    collapsed = softmax(core.predict(features, verbose=0), axis=1)
    np.testing.assert_allclose(collapsed, mean_of_logits(predictions), atol=1e-6)
    assert np.abs(collapsed - np.mean(predictions, axis=0)).max() > 0.01  # which a vote would give


def test_weights_of_another_shape_are_no_average() -> None:
    with pytest.raises(ValueError, match="argument"):
        sum_weights([np.zeros(2)], [np.zeros(2), np.zeros(2)])


def test_who_makes_it_worse_stays_out() -> None:
    """Numbers stand for predictions, their mean for the average, nearness to 10 for the metric."""
    weights = [8.0, 13.0, 0.0, 9.0]

    def predict(members: Sequence[int]) -> np.ndarray:
        return np.array([np.mean([weights[number] for number in members])])

    def key(found: np.ndarray) -> tuple[float, float]:
        return -abs(found[0] - 10), 0.0

    members, found = greedy_soup(predict([0]), 4, predict, key)
    assert members == [0, 1, 3]  # 8; 10.5; 7 with the third: out; 10
    assert found == [10.0]
    assert greedy_soup(found, 3, predict, lambda _: (0.0, 0.0))[0] == [
        0,
        1,
        2,
    ]  # equal is not worse


def test_records_of_earlier_versions_are_votes() -> None:
    members = [{"trial_id": "0001"}, {"trial_id": "0002"}]
    assert EnsembleRecord.model_validate({"members": members, "accuracy": 0.5}).method == "vote"
