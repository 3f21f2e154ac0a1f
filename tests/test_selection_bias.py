"""The corrected accuracy: by hand where that is possible, by simulation where it is not."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pawtune.models.baselines import baseline
from pawtune.search.progress.watch import read_state
from pawtune.search.results.selection_bias import _pick, correct_selection, read_scores
from pawtune.search.run import Run
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images

Floats = NDArray[np.float32]


def null_data(rng: np.random.Generator, candidates: int, images: int, true: float) -> Floats:
    """Candidates that are all equally good: whoever wins was lucky."""
    return (rng.random((candidates, images)) < true).astype(np.float32)


def test_the_correction_removes_most_of_the_optimism_on_null_data() -> None:
    """Best of 100 equal candidates, 400 images, 40 repetitions: standard error below 0.004."""
    rng = np.random.default_rng(0)
    labels = np.zeros(400, np.int32)
    seen, corrected = [], []
    for _ in range(40):
        hits = null_data(rng, 100, 400, 0.7)
        seen.append(hits.mean(axis=1).max() - 0.7)
        found = correct_selection(hits, 1 - hits, labels, bootstraps=200)
        corrected.append(found.accuracy - 0.7)
    assert np.mean(seen) > 0.05
    assert abs(np.mean(corrected)) < 0.25 * np.mean(seen)


def test_a_true_winner_keeps_its_accuracy() -> None:
    rng = np.random.default_rng(1)
    hits = null_data(rng, 20, 1000, 0.5)
    hits[7] = rng.random(1000) < 0.9
    found = correct_selection(hits, 1 - hits, np.zeros(1000, np.int32))
    assert found.accuracy == pytest.approx(hits[7].mean(), abs=0.002)
    low, high = found.interval_95
    assert low < found.accuracy < high
    # 368 of 1,000 left out, without replacement: their mean varies 1 / 0.368 - 1 as much.
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.09 / 1000 * 1.717), rel=0.15)


def test_ties_and_other_metrics_pick_as_the_search_does() -> None:
    labels = np.array([0] * 90 + [1] * 10, np.int32)
    always_first = (labels == 0).astype(np.float32)
    fair = np.ones(100, np.float32)
    fair[:20] = 0
    hits = np.stack([fair, always_first])  # 0.80 and 0.90; balanced 0.89 and 0.50
    losses = np.stack([np.full(100, 0.3), np.full(100, 0.6)]).astype(np.float32)
    chosen = {
        "val_accuracy": correct_selection(hits, losses, labels).accuracy,
        "val_balanced_accuracy": correct_selection(
            hits, losses, labels, "val_balanced_accuracy"
        ).accuracy,
        "val_loss": correct_selection(hits, losses, labels, "val_loss").accuracy,
    }
    assert chosen["val_accuracy"] == pytest.approx(0.9, abs=0.01)
    assert chosen["val_balanced_accuracy"] == pytest.approx(0.8, abs=0.01)
    assert chosen["val_loss"] == pytest.approx(0.8, abs=0.01)


def test_of_equal_accuracies_the_lower_loss_is_picked() -> None:
    hits = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]], np.float32)
    losses = np.array([[0.9], [0.1], [0.5]], np.float32).repeat(3, axis=1)
    drawn = np.array([[1, 1, 1], [0, 3, 0], [2, 1, 0]], np.float32)
    # two right each: the middle one; the first and last right: the last; the last alone: it
    labels = np.zeros(3, np.int32)
    assert _pick(drawn, hits, losses, labels, "val_accuracy").tolist() == [1, 2, 2]
    assert _pick(drawn, hits, losses, labels, "val_loss").tolist() == [1, 1, 1]


def test_the_draws_depend_on_the_seed_alone() -> None:
    hits = null_data(np.random.default_rng(2), 5, 60, 0.8)
    labels = np.zeros(60, np.int32)
    first = correct_selection(hits, 1 - hits, labels, bootstraps=50)
    assert correct_selection(hits, 1 - hits, labels, bootstraps=50) == first
    assert correct_selection(hits, 1 - hits, labels, bootstraps=50, seed=1) != first


def test_two_hundred_trials_of_five_thousand_images_take_seconds() -> None:
    hits = null_data(np.random.default_rng(3), 200, 5000, 0.9)
    started = time.process_time()
    correct_selection(hits, 1 - hits, np.zeros(5000, np.int32))
    assert time.process_time() - started < 30  # about 1 s on two idle cores


def test_a_run_tells_both_figures(runs_dir: Path, tmp_path: Path) -> None:
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"], 100))
    maker.proposals(8)
    run = Run(maker.finish())
    estimate = run.validation()
    assert estimate is not None
    best = run.rows()[0]
    kept = np.load(run.folder.trial(best.trial_id).best_predictions)
    labels = run.manifest().labels("validation")
    assert estimate.trial_id == best.trial_id
    assert estimate.accuracy == np.mean(kept.argmax(axis=1) == labels)
    assert (estimate.candidates, estimate.images) == (8, 30)
    assert 0.5 < estimate.corrected_accuracy <= 1
    # Neither figure, nor `status`, takes a row for each image.
    (run.folder.root / "manifest.csv").unlink()
    assert run.validation() == estimate
    assert read_state(run.folder).val_images == 30
    run.folder.trial(best.trial_id).best_predictions.unlink()
    assert run.validation() is None


def test_a_run_without_candidates_has_no_figure(runs_dir: Path, tmp_path: Path) -> None:
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"]))
    assert Run(maker.folder).validation() is None
    maker.add(baseline("tutorial_1", 2), status="failed", reason="NaN")
    assert Run(maker.finish()).validation() is None


def test_a_winner_that_only_equals_the_majority_has_learned_nothing(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """600 to 4 images: an accuracy of 0.99 looked like a success."""
    images = make_images(tmp_path / "images", ["cat", "dog"], 60)
    for file in sorted((images / "dog").iterdir())[12:]:
        file.unlink()
    maker = RunMaker(runs_dir, images)
    trial = maker.folder.trial(maker.add(baseline("tutorial_1", 4)))
    labels = maker.manifest.labels("validation")
    share = float(np.mean(labels == 0))
    rows = trial.read_metrics()
    trial.write_metrics([{**row, "val_accuracy": share} for row in rows])
    np.save(trial.best_predictions, np.tile(np.float32([0.9, 0.1]), (len(labels), 1)))
    told = pawtune(capsys, "leaderboard", maker.finish().root)
    assert f"always cat scores {share:.4f}" in told.out
    assert "it has learned nothing" in told.out
    estimate = Run(maker.folder).validation()
    assert estimate is not None
    assert (estimate.majority.label, estimate.majority.share) == ("cat", share)
    assert estimate.as_dict()["learned_nothing"]
    report = tmp_path / "report.md"
    assert pawtune(capsys, "report", maker.folder.root, "--out", report, "--format=md").code == 0
    assert "learned nothing" in report.read_text()


def test_predictions_are_read_one_trial_at_a_time(runs_dir: Path, tmp_path: Path) -> None:
    """Hits and losses alone stay: 8 bytes for each trial and image, whatever the classes."""
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", [f"c{n}" for n in range(30)], 20))
    for _ in range(40):
        maker.add(baseline("tutorial_1", 1))
    run = Run(maker.finish())
    labels, rows = maker.manifest.labels("validation"), run.rows()
    tracemalloc.start()
    scores = read_scores(maker.folder, rows, labels, 30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scores is not None
    hits, losses = scores
    assert hits.shape == losses.shape == (40, len(labels))
    for row, hit, loss in zip(rows, hits, losses, strict=True):
        kept = np.load(maker.folder.trial(row.trial_id).best_predictions)
        np.testing.assert_array_equal(hit, kept.argmax(axis=1) == labels)
        np.testing.assert_allclose(loss, -np.log(kept[np.arange(len(labels)), labels]), rtol=1e-5)
    one = len(labels) * 30 * 4
    assert peak < 40 * one / 2  # all probabilities at once would be 40


def test_images_that_are_all_right_leave_room_for_doubt() -> None:
    hits = np.ones((2, 200), np.float32)
    found = correct_selection(hits, 1 - hits, np.zeros(200, np.int32))
    assert found.accuracy == 1
    assert found.interval_95 == pytest.approx((0.981, 1.0), abs=5e-4)  # Wilson, 200 of 200
