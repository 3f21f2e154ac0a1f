"""Golden values by hand; the exact test against SciPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pawtune.search.cli.tables.evaluation import headlines, tables
from pawtune.search.results.evaluation import TestResult
from pawtune.search.results.evaluation_record import BaselineScore, TestMistake
from pawtune.search.results.metrics import (
    Comparison,
    calibration_error,
    compare_paired,
    confusion_matrix,
    score_classes,
)
from tests.terminal import drawn


def test_classes_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    predicted = np.array([0, 0, 1, 0, 1, 1, 1, 1])
    confusion = confusion_matrix(labels, predicted, 3)
    assert confusion.tolist() == [[2, 1, 0], [1, 4, 0], [0, 0, 0]]
    cat, dog, bird = score_classes(confusion, ("cat", "dog", "bird"))
    assert (cat.name, cat.images) == ("cat", 3)
    assert cat.precision == cat.recall == cat.f1 == pytest.approx(2 / 3)
    assert dog.precision == dog.recall == dog.f1 == pytest.approx(4 / 5)
    assert (bird.images, bird.precision, bird.recall, bird.f1) == (0, None, None, None)


def test_f1_lies_between_precision_and_recall() -> None:
    (first, _) = score_classes(np.array([[3, 0], [3, 4]]), ("a", "b"))
    assert (first.precision, first.recall) == (0.5, 1.0)
    assert first.f1 == pytest.approx(2 / 3)


def test_calibration_error_by_hand() -> None:
    """Bins of 1/15: 0.95 and 0.98 lie in the last, 0.6 in (8/15, 9/15], 0.7 in (10/15, 11/15]."""
    confidence = np.array([0.95, 0.98, 0.6, 0.7])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 0])  # right, wrong, right, right
    expected = (abs(1 - 1.93) + abs(1 - 0.6) + abs(1 - 0.7)) / 4
    assert calibration_error(probabilities, labels) == pytest.approx(expected)
    assert calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(3 - 3.23) / 4)


def test_certainty_that_is_right_is_calibrated() -> None:
    probabilities = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert calibration_error(probabilities, np.array([0, 1, 0])) == 0.0
    assert calibration_error(probabilities, np.array([1, 0, 1])) == 1.0


def rights(both: int, first: int, second: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, none]
    return (
        np.repeat([True, True, False, False], counts),
        np.repeat([True, False, True, False], counts),
    )


def test_the_paired_comparison_by_hand() -> None:
    # 1 against 5 of 6: 2 * (1 + 6) / 64
    assert compare_paired(*rights(10, 1, 5, 2)) == Comparison(1, 5, 14 / 64)
    assert compare_paired(*rights(10, 5, 1, 2)) == Comparison(5, 1, 14 / 64)
    assert compare_paired(*rights(10, 0, 0, 2)) == Comparison(0, 0, 1.0)
    assert compare_paired(*rights(0, 3, 3, 0)).p_value == 1.0


@given(first=st.integers(0, 400), second=st.integers(0, 400))
def test_the_p_value_is_that_of_the_binomial_test(first: int, second: int) -> None:
    p_value = compare_paired(*rights(3, first, second, 1)).p_value
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert p_value == pytest.approx(expected, rel=1e-9)


def test_names_are_shown_as_they_are() -> None:
    result = TestResult(
        accuracy=0.5, correct=1, n=2, interval_95=(0.1, 0.9), trial_id="0001",
        baseline=BaselineScore("tutorial_3", 0.5), looks=2, class_names=("[red]", "b"),
        classes=score_classes(np.array([[1, 1], [0, 0]]), ("[red]", "b")),
        confusion=((1, 1), (0, 0)), calibration_error=0.25, comparison=Comparison(1, 1, 1.0),
        mistakes=(TestMistake("[red]/a\nb [/].jpg", "[red]", "b", 0.75),),
    )  # fmt: skip
    text = drawn(120, *tables(result))
    assert "[red]/a\\nb [/].jpg" in text
    assert "→ [red]" in text
    lines = list(headlines(result))
    assert lines[0] == ("test accuracy 0.5000 (1 of 2), 95% interval 0.1000 to 0.9000, trial 0001")
    assert "exact McNemar p = 1" in lines[3]
    assert "look 2" in lines[4]


def test_many_classes_fit_a_terminal() -> None:
    names = tuple(f"class{number}" for number in range(17))
    confusion = 9 * np.eye(17, dtype=np.int64)
    confusion[3, [5, 7]] = 1, 2
    confusion[4, :4] = 1
    result = TestResult(
        accuracy=0.9, correct=1, n=2, interval_95=(0.8, 0.95), trial_id="0001",
        baseline=None, looks=1, class_names=names, classes=score_classes(confusion, names),
        confusion=tuple(map(tuple, confusion.tolist())), calibration_error=0.25, comparison=None,
        mistakes=(),
    )  # fmt: skip
    (table,) = tables(result)
    lines = {line.split()[1]: line for line in drawn(80, table).splitlines()[2:] if "class" in line}
    assert "0.7500" in lines["class3"]  # recall: 9 of 12
    assert "class7 2, class5 1" in lines["class3"]
    assert "class0 1, class1 1, class2" in lines["class4"]
    assert "taken for" in lines["class"]
