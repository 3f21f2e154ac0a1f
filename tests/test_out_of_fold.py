"""Predictions of unseen images are exact; what is found in them is right on golden values."""

from pathlib import Path

import numpy as np
import pytest

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.errors import ModelError
from pawtune.models.features.neighbours import UnitScale, find_copies, find_outliers, nearest
from pawtune.models.out_of_fold.conformal import label_set, set_threshold
from pawtune.models.out_of_fold.label_errors import confident_joint, find_label_errors, margins
from pawtune.models.out_of_fold.learning_curve import LearningCurve, forecast, measure_curve
from pawtune.models.out_of_fold.leave_out import (
    deal_folds,
    leave_out_ridge,
)
from pawtune.models.training.solved_heads import decompose, fit_temperature
from tests.image_files import write_classes


def blobs(count: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    return rng.normal(size=(count, 8)) + 2 * np.eye(8)[labels], labels


def ridge_by_hand(
    z: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: float
) -> np.ndarray:
    """Weights of a ridge head with a constant feature under the same penalty."""
    x = np.hstack([z, np.ones((len(z), 1))])
    targets = np.eye(3)[labels]
    gram = x.T @ (weights[:, None] * x) + penalty * np.eye(x.shape[1])
    solved: np.ndarray = np.linalg.solve(gram, x.T @ (weights[:, None] * targets))
    return solved


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_leaves_groups_out_exactly(weighted: bool) -> None:
    x, labels = blobs()
    weights = np.where(labels == 0, 2.0, 1.0) if weighted else None
    parts = decompose(x, x[:1], weights)
    groups = np.arange(60)
    groups[[3, 7, 20]] = 3
    groups[[4, 5]] = 4
    found = leave_out_ridge(parts, labels, 3, 0.7, groups)
    z = parts.coordinates.astype(float)
    expected = np.empty((60, 3))
    for row in range(60):
        rest = groups != groups[row]
        beta = ridge_by_hand(z[rest], labels[rest], parts.weights[rest], 0.7)
        expected[row] = np.append(z[row], 1) @ beta
    expected *= fit_temperature(expected, labels, parts.weights)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_duplicates_hide_nothing_once_they_are_left_out_together() -> None:
    """A wrong label whose copy says the same is believed, unless both are left out."""
    x, labels = blobs()
    x, labels = np.vstack([x, x[:1]]), np.append(labels, 1)
    labels[0] = 1  # wrong, and so is its copy
    groups = np.append(np.arange(60), 0)
    parts = decompose(x, x[:1])
    apart = leave_out_ridge(parts, labels, 3, 0.01)
    together = leave_out_ridge(parts, labels, 3, 0.01, groups)
    assert together[0].argmax() == 0
    assert together[0, 0] - together[0, 1] > apart[0, 0] - apart[0, 1]


def test_folds_keep_groups_whole_and_spread_classes() -> None:
    labels = np.repeat([0, 1], 25)
    groups = np.arange(50)
    groups[1] = 0
    folds = deal_folds(labels, groups, 5, seed=3)
    assert folds[0] == folds[1]
    assert all(4 <= np.sum((folds == f) & (labels == c)) <= 6 for f in range(5) for c in (0, 1))
    np.testing.assert_array_equal(folds, deal_folds(labels, groups, 5, seed=3))


GOLDEN = np.array(
    [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.6, 0.4]]
)
GIVEN = np.array([0, 0, 0, 0, 1, 1, 1])


def test_the_confident_joint_counts_what_other_classes_claim() -> None:
    """Thresholds are 0.65 and 2/3: image 3 is claimed by class 1, image 6 by none."""
    np.testing.assert_allclose(confident_joint(GOLDEN, GIVEN), [[3, 1], [0, 3]])


def test_label_errors_are_those_that_the_joint_counts() -> None:
    np.testing.assert_array_equal(find_label_errors(GOLDEN, GIVEN), [3])
    np.testing.assert_allclose(margins(GOLDEN, GIVEN)[[0, 3]], [0.8, -0.6])
    clean = np.eye(2)[GIVEN] * 0.8 + 0.1
    assert len(find_label_errors(clean, GIVEN)) == 0


def test_flipped_labels_are_found() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(400) % 2
    x = rng.normal(size=(400, 10)) + 3 * np.eye(10)[labels]
    flipped = rng.permutation(400)[:40]
    given = labels.copy()
    given[flipped] = 1 - given[flipped]
    logits = leave_out_ridge(decompose(x, x[:1]), given, 2, 1.0)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = find_label_errors(p, given)
    assert len(set(found[:40]) & set(flipped)) >= 36


def test_copies_and_outliers_are_found_among_features() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(80, 200))
    x[:40, 0] += 3
    x[79] = x[5] + rng.normal(size=200) * 0.1
    x[78] = 0
    x[78, 29] = 80
    units = UnitScale.of(x).apply(x)
    near = nearest(units, units, 5, themselves=True)
    assert [pair[:2] for pair in find_copies(near)] == [(5, 79)]
    assert not (near.rows == np.arange(80)[:, None]).any()
    assert find_outliers(near)[0] == 78


def test_the_learning_curve_of_a_known_law_is_continued() -> None:
    sizes = np.array([100, 150, 200, 300, 450, 650, 800])
    truth = 0.02 + 0.2 * (sizes / 100) ** -0.6
    rng = np.random.default_rng(4)
    errors = truth[:, None] + rng.normal(0, 0.002, (7, 8))
    totals = np.full((7, 8, 1), 1000.0)
    curve = LearningCurve(sizes, (1 - errors)[:, :, None] * 1000, totals)
    (found,) = forecast(curve, [2000], scored_on=0)
    expected = 1 - (0.02 + 0.2 * 20**-0.6)
    assert found.accuracy == pytest.approx(expected, abs=0.01)
    assert found.band[0] < expected < found.band[1]
    (wider,) = forecast(curve, [2000], scored_on=200)
    assert wider.band[1] - wider.band[0] > found.band[1] - found.band[0]


def test_heads_on_more_images_are_better_and_classes_are_counted() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(300) % 3
    x = rng.normal(size=(300, 40)) + 1.5 * np.eye(40)[labels]
    curve = measure_curve(decompose(x, x[:1]), labels, 3, 1.0, np.arange(300), repetitions=4)
    assert curve.accuracies.shape == (7, 4)
    assert curve.accuracies[-1].mean() > curve.accuracies[0].mean()
    np.testing.assert_array_equal(curve.totals.sum(axis=2), 60)
    assert curve.recalls().shape == (7, 3)


def test_label_sets_by_hand() -> None:
    """Five images, coverage 0.6: rank ceil(6 * 0.6) = 4 of 0.9, 0.8, 0.7, 0.4, 0.2."""
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 1, 0, 1, 0])
    assert set_threshold(p, labels, 0.6) == pytest.approx(0.4)
    assert label_set(np.array([0.45, 0.55]), 0.4).tolist() == [1, 0]
    assert label_set(np.array([0.39, 0.61]), 0.4).tolist() == [1]
    assert label_set(np.array([0.3, 0.3, 0.4]), 0.9).tolist() == []
    with pytest.raises(ModelError, match="of coverage 0.9 need 9 validation images or more"):
        set_threshold(p, labels, 0.9)


@pytest.mark.parametrize(("concentration", "coverage"), [(0.6, 0.9), (0.05, 0.8)])
def test_label_sets_cover_as_often_as_asked(concentration: float, coverage: float) -> None:
    """No more often either, where the model alone is right more often than asked."""
    rng = np.random.default_rng(6)
    covered, right = [], []
    for _ in range(40):
        p = rng.dirichlet(np.full(5, concentration), 700)
        labels = np.array([rng.choice(5, p=row) for row in p])
        threshold = set_threshold(p[:200], labels[:200], coverage)
        sets = [label_set(row, threshold) for row in p[200:]]
        covered.append(np.mean([y in s for y, s in zip(labels[200:], sets, strict=True)]))
        right.append(np.mean(p.argmax(axis=1) == labels))
    assert float(np.mean(covered)) == pytest.approx(coverage, abs=0.02)
    assert (np.mean(right) > coverage + 0.05) == (coverage == 0.8)


def correction_lines(manifest: Manifest, *decisions: tuple[str, str, str]) -> str:
    hashes = {entry.path: entry.sha256 for entry in manifest.entries}
    rows = [
        f"{path},{hashes.get(path, '0' * 64)},{what},{label}" for path, what, label in decisions
    ]
    return "\n".join(["path,sha256,decision,label", *rows]) + "\n"


def test_corrections_make_another_manifest_of_the_same_folder(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "pets", {"cat": 12, "dog": 12})
    before = build_manifest(root)
    file = tmp_path / "relabel.csv"
    file.write_text(
        correction_lines(
            before,
            ("cat/3.png", "relabel", "dog"),
            ("dog/4.png", "drop", ""),
            ("dog/5.png", "keep", ""),
        )
    )
    after = build_manifest(root, relabel=file)
    labels = {entry.path: entry.label for entry in after.entries}
    assert labels["cat/3.png"] == "dog"
    assert labels["dog/5.png"] == "dog"
    assert "dog/4.png" not in labels
    assert [reject.reason for reject in after.rejects] == ["dropped by --relabel"]
    assert "1 images relabelled, 1 dropped" in " ".join(after.notes)
    assert build_manifest(root) == before


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (("cat/99.png", "drop", ""), "must be among the data, received 'cat/99.png'"),
        (("cat/3.png", "relabel", "cow"), "one of the classes .cat, dog., received 'cow'"),
        (("cat/3.png", "relabel", ""), "line 2 must hold a path, its sha256"),
        (("cat/3.png", "erase", ""), "line 2 must hold a path, its sha256"),
    ],
)
def test_corrections_that_do_not_fit_are_refused(
    tmp_path: Path, decision: tuple[str, str, str], message: str
) -> None:
    root = write_classes(tmp_path / "pets", {"cat": 12, "dog": 12})
    file = tmp_path / "relabel.csv"
    file.write_text(correction_lines(build_manifest(root), decision))
    with pytest.raises(DataError, match=message):
        build_manifest(root, relabel=file)


def test_corrections_of_another_content_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "pets", {"cat": 12, "dog": 12})
    file = tmp_path / "relabel.csv"
    file.write_text(correction_lines(build_manifest(root), ("cat/3.png", "drop", "")))
    file.write_text(file.read_text().replace("cat/3.png", "cat/4.png"))
    with pytest.raises(DataError, match="has other content now"):
        build_manifest(root, relabel=file)
