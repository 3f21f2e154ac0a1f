"""models.training.solved_heads: exact solutions, checked against refits, gradients and Keras."""

from typing import Any

import keras
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from pawtune.models.errors import ModelError
from pawtune.models.training import solved_heads
from pawtune.models.training.solved_heads import (
    Decomposition,
    SolvedHead,
    decompose,
    solve_logistic,
    solve_ridge,
)


def problem(count: int, width: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features of training and validation images, and labels that depend on them."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes)
    centres = random.normal(size=(classes, width))
    train = centres[labels] + 2 * random.normal(size=(count, width)) + 5
    validation = centres[np.arange(20) % classes] + 2 * random.normal(size=(20, width)) + 5
    return train, validation, labels


def standardised(decomposition: Decomposition, features: np.ndarray) -> np.ndarray:
    """Features over √D with a constant, as the penalty sees them."""
    x = (features - decomposition.mean) / decomposition.scale / np.sqrt(features.shape[1])
    return np.hstack([x, np.ones((len(x), 1))])


def plain_ridge(x: np.ndarray, y: np.ndarray, w: np.ndarray, strength: float) -> np.ndarray:
    """Normal equations of weighted ridge, constant included under the penalty."""
    gram = x.T @ (w[:, None] * x) + strength * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ (w[:, None] * y))


@pytest.mark.parametrize(("count", "width"), [(200, 40), (60, 300)], ids=["tall", "wide"])
@pytest.mark.parametrize(("weighted", "strength"), [(False, 2.0), (True, 2.0), (False, 1e-3)])
def test_leave_one_out_is_what_refits_without_each_image_say(
    count: int, width: int, weighted: bool, strength: float
) -> None:
    train, validation, labels = problem(count, width)
    given = np.random.default_rng(1).uniform(0.3, 3, count) if weighted else None
    d = decompose(train, validation, given)
    head = solve_ridge(d, labels, 3, strength)
    x, y, w = standardised(d, train), np.eye(3)[labels], d.weights
    refits = [
        x[i] @ plain_ridge(np.delete(x, i, 0), np.delete(y, i, 0), np.delete(w, i), strength)
        for i in range(count)
    ]
    assert head.loo_logits is not None
    temperature = head.train_logits[0, 0] / (x[0] @ plain_ridge(x, y, w, strength))[0]
    np.testing.assert_allclose(head.loo_logits / temperature, refits, atol=1e-6)


@pytest.mark.parametrize(("count", "width"), [(200, 40), (60, 300)], ids=["tall", "wide"])
def test_logistic_regression_is_at_the_bottom(count: int, width: int) -> None:
    """Of its loss the gradient is zero, in the coordinates of the features themselves."""
    train, validation, labels = problem(count, width)
    weights = np.random.default_rng(1).uniform(0.3, 3, count)
    d = decompose(train, validation, weights)
    strength = 0.5
    head = solve_logistic(d, labels, 3, strength)
    logits = train @ head.kernel.astype("float64") + head.bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = d.weights[:, None] * (p / p.sum(1, keepdims=True) - np.eye(3)[labels])
    beta = head.kernel * d.scale[:, None] * np.sqrt(width)
    x = standardised(d, train)
    slope = x[:, :-1].T @ error + strength * beta
    assert np.abs(slope).max() / count < 1e-4
    assert np.abs(error.sum(axis=0)).max() / count < 1e-4


@pytest.mark.parametrize("solve", [solve_ridge, solve_logistic])
@pytest.mark.parametrize("classes", [2, 5])
def test_one_dense_layer_of_keras_says_the_same(solve: object, classes: int) -> None:
    train, validation, labels = problem(90, 30, classes)
    head: SolvedHead = solve(decompose(train, validation), labels, classes, 0.3)  # type: ignore[operator]
    layer = keras.layers.Dense(classes)
    layer.build((None, 30))
    layer.set_weights([head.kernel, head.bias])
    for features, logits in ((train, head.train_logits), (validation, head.val_logits)):
        np.testing.assert_allclose(
            layer(features.astype("float32")), logits, atol=1e-5 * np.abs(logits).max()
        )


@pytest.mark.parametrize("solve", [solve_ridge, solve_logistic])
def test_heads_learn_and_give_sensible_probabilities(solve: object) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 4
    train = 3 * np.eye(4)[labels] + 0.3 * random.normal(size=(400, 4))
    head: SolvedHead = solve(decompose(train, train[:40]), labels, 4, 0.1)  # type: ignore[operator]
    assert (head.val_logits.argmax(1) == labels[:40]).all()
    p = np.exp(head.val_logits) / np.exp(head.val_logits).sum(1, keepdims=True)
    assert p.max(axis=1).mean() > 0.9


def test_the_order_of_features_and_images_does_not_matter() -> None:
    train, validation, labels = problem(80, 50)
    rows, columns = (np.random.default_rng(2).permutation(n) for n in (80, 50))
    one = solve_ridge(decompose(train, validation), labels, 3, 1.0)
    other = solve_ridge(
        decompose(train[rows][:, columns], validation[:, columns]), labels[rows], 3, 1.0
    )
    np.testing.assert_allclose(one.val_logits, other.val_logits, atol=1e-4)


def test_constant_features_and_many_classes_are_no_trouble() -> None:
    random = np.random.default_rng(0)
    train = random.normal(size=(2000, 20)).astype("float16")
    train[:, 3] = 7
    labels = np.arange(2000) % 1000
    d = decompose(train, train[:10])
    assert d.scale[3] == 1
    for head in (solve_ridge(d, labels, 1000, 1.0), solve_logistic(d, labels, 1000, 10.0)):
        assert np.isfinite(head.kernel).all()
        assert np.abs(head.kernel[3]).max() < 1e-6


def test_class_weights_move_the_border() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0] * 190 + [1] * 10)
    train = random.normal(size=(200, 2)) + labels[:, None]
    balanced = np.where(labels == 1, 200 / 20, 200 / 380)
    shares = [
        (solve_ridge(decompose(train, train, w), labels, 2, 0.1).val_logits.argmax(1) == 1).mean()
        for w in (None, balanced)
    ]
    assert shares[0] < 0.1 < 0.2 < shares[1]


def test_a_decomposition_is_stored_as_arrays() -> None:
    train, validation, labels = problem(30, 10)
    d = decompose(train, validation)
    again = Decomposition.from_arrays(d.as_arrays())
    np.testing.assert_array_equal(
        solve_ridge(d, labels, 3, 1.0).kernel, solve_ridge(again, labels, 3, 1.0).kernel
    )


@pytest.mark.parametrize("shape", [(12, 4), (12, 40)])
def test_features_that_say_nothing_give_the_shares_of_the_classes(shape: tuple[int, int]) -> None:
    features, labels = np.ones(shape), np.array([0] * 9 + [1] * 3)
    d = decompose(features, features)
    logits = solve_logistic(d, labels, 2, 0.1).val_logits
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(p[0], [0.75, 0.25], atol=0.02)
    assert (solve_ridge(d, labels, 2, 0.1).val_logits.argmax(1) == 0).all()


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="features must be finite, received NaN"):
        decompose(np.full((9, 4), np.nan), np.ones((2, 4)))


@pytest.mark.parametrize("solve", [solve_ridge, solve_logistic])
def test_a_penalty_that_is_not_positive_is_refused(solve: object) -> None:
    train, validation, labels = problem(30, 10)
    with pytest.raises(ModelError, match=r"regularisation must be above 0, received 0\.0"):
        solve(decompose(train, validation), labels, 3, 0.0)  # type: ignore[operator]


def test_classes_that_separate_leave_room_for_doubt() -> None:
    """Ten images a class cannot show that one in a thousand is not wrong."""
    labels = np.arange(20) % 2
    train = np.eye(2)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(20, 2))
    logits = solve_ridge(decompose(train, train), labels, 2, 0.01).val_logits
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert (p.argmax(1) == labels).all()
    assert 0.85 < p.max(1).min() <= p.max(1).max() < 0.97


def test_many_images_take_no_more_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intercept's curvature grows with the images: unscaled, it took all 300 iterations."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(10_000, 20)).astype(np.float32)
    scores = features @ rng.normal(size=(20, 5)) + rng.gumbel(size=(10_000, 5)) + np.arange(5)
    labels = scores.argmax(axis=1)[:8_000]
    decomposition = decompose(features[:8_000], features[8_000:])
    taken: list[int] = []

    def counting(*arguments: Any, **options: Any) -> Any:
        found = minimize(*arguments, **options)
        taken.append(found.nit)
        return found

    monkeypatch.setattr(solved_heads, "minimize", counting)
    found = softmax(solve_logistic(decomposition, labels, 5, 0.1).val_logits, axis=1)
    monkeypatch.setattr(solved_heads, "_GRADIENT_TOLERANCE", 1e-9)
    monkeypatch.setattr(solved_heads, "_LOSS_TOLERANCE", 1e-13)
    further = softmax(solve_logistic(decomposition, labels, 5, 0.1).val_logits, axis=1)
    assert taken[0] < 60
    assert np.abs(found - further).max() < 0.001


def test_groups_weigh_alike_whatever_their_width() -> None:
    """A group said twice over, and a narrow one: the head is that of each of them said once."""
    rng = np.random.default_rng(3)
    wide, narrow = rng.normal(size=(60, 8)), rng.normal(size=(60, 2))
    labels = rng.integers(0, 3, 60)
    once = np.concatenate([wide, narrow], axis=1)
    twice = np.concatenate([wide, wide, narrow], axis=1)
    one = solve_ridge(decompose(once, once, None, [8, 2]), labels, 3, 0.5)
    two = solve_ridge(decompose(twice, twice, None, [16, 2]), labels, 3, 0.5)
    np.testing.assert_allclose(one.val_logits, two.val_logits, atol=1e-4)
    np.testing.assert_allclose(twice @ two.kernel + two.bias, two.val_logits, atol=1e-4)
    flat = solve_ridge(decompose(twice, twice), labels, 3, 0.5)
    assert not np.allclose(flat.val_logits, two.val_logits, atol=1e-2)
