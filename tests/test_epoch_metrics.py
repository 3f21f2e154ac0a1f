"""Scores by hand, and a diverged trial told as such."""

import numpy as np
import pytest

from pawtune.models.errors import DivergedError
from pawtune.models.training.epoch_metrics import balancing_weights, epoch_result, score


def test_scores_by_hand() -> None:
    # probabilities of class 1: 0.8, 0.2, 0.5, 0.9
    logits = np.log([[0.2, 0.8], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]).astype("float32")
    scores, probabilities = score(logits, np.array([1, 0, 0, 0]))
    assert scores["val_loss"] == pytest.approx(-np.log([0.8, 0.8, 0.5, 0.1]).mean(), rel=1e-6)
    assert scores["val_accuracy"] == 0.75  # a tie goes to the first class
    assert scores["val_balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[:, 1], [0.8, 0.2, 0.5, 0.9], rtol=1e-6)


def test_scores_stand_large_logits_and_absent_classes() -> None:
    scores, probabilities = score(np.array([[3000.0, 0.0, 0.0]]), np.array([1]))
    assert scores == {"val_loss": 3000.0, "val_accuracy": 0.0, "val_balanced_accuracy": 0.0}
    np.testing.assert_array_equal(probabilities, [[1, 0, 0]])


def test_class_weights_make_classes_count_alike() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = balancing_weights(labels, 4)
    np.testing.assert_allclose(weights, [6 / 12, 6 / 4, 0, 6 / 8])
    sums = [weights[labels[labels == label]].sum() for label in (0, 1, 3)]
    np.testing.assert_allclose(sums, 1.5)


@pytest.mark.parametrize(
    ("loss", "logit"), [(np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan), (1.0, np.inf)]
)
def test_a_diverged_epoch_is_an_error_that_names_it(loss: float, logit: float) -> None:
    with pytest.raises(DivergedError, match=r"loss must stay finite, .* in epoch 4: try a learni"):
        epoch_result(
            4,
            loss=loss,
            accuracy=0.5,
            val_logits=np.array([[logit, 1.0]]),
            val_labels=np.array([0]),
            learning_rate=0.1,
            num_images=1,
            train_seconds=1.0,
            seconds=1.0,
        )
