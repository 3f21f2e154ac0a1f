"""When a soft vote is offered: counted by hand from stored predictions."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from pawtune.models.baselines import baseline
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.errors import UserError
from pawtune.search.results.ensembles.combination import EnsembleResult, judge
from pawtune.search.results.ensembles.ensemble import make_ensemble
from pawtune.search.results.ensembles.vote import vote_of
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import write_array, write_json
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images


@pytest.fixture
def run(runs_dir: Path, tmp_path: Path) -> Run:
    """Three trials of 30 validation images; their predictions are written by the tests."""
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"], 100))
    for number, accuracy in ((1, 0.9), (2, 0.8), (3, 0.7)):
        maker.add(baseline(f"tutorial_{number}", 4), is_baseline=True, accuracy=accuracy)
    maker.finish()
    return Run(maker.folder)


def count_votes(run: Run) -> EnsembleResult:
    """What all three trials say together."""
    manifest = run.manifest()
    return judge(vote_of(run.folder, run.rows(), manifest), manifest.labels("validation"))


def predict(run: Run, trial_id: str, wrong: Iterable[int], doubt: float = 0.4) -> None:
    """Lets a trial give the truth 0.9, but on `wrong` only `doubt`."""
    labels = run.manifest().labels("validation")
    truth = np.full(len(labels), 0.9)
    truth[list(wrong)] = doubt
    probabilities = np.stack([1 - truth, truth], axis=1)
    probabilities[labels == 0] = probabilities[labels == 0, ::-1]
    write_array(run.folder.trial(trial_id).best_predictions, probabilities.astype("float32"))


def test_mistakes_in_different_places_are_outvoted(run: Run) -> None:
    predict(run, "0001", range(0, 6))
    predict(run, "0002", range(6, 12))
    predict(run, "0003", range(12, 18))
    vote = count_votes(run)
    assert [member.trial_id for member in vote.members] == ["0001", "0002", "0003"]
    assert (vote.correct, vote.best_correct, vote.images) == (30, 24, 30)
    assert (vote.comparison.only_first, vote.comparison.only_second) == (6, 0)
    assert vote.comparison.p_value == 2 / 64  # six of six, two-sided
    assert vote.log_loss < vote.best_log_loss
    assert vote.log_loss_p < 0.05
    assert vote.wins


def test_a_lower_log_loss_wins_before_right_answers_differ_enough(run: Run) -> None:
    """Five images more are no proof to McNemar's test; what all images are given is."""
    predict(run, "0001", range(0, 5))
    predict(run, "0002", range(6, 12))
    predict(run, "0003", range(12, 18))
    vote = count_votes(run)
    assert vote.comparison.p_value == 2 / 32
    assert 0.005 < vote.log_loss_p < 0.05
    assert vote.wins


def test_a_lead_within_noise_does_not_win(
    run: Run, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(run, "0001", range(0, 2))
    predict(run, "0002", range(2, 6))
    predict(run, "0003", range(6, 9))
    found = pawtune(capsys, "ensemble", "made", "--runs-dir", runs_dir)
    assert found.code == 0
    assert "only the vote is right on 2 images, only 0001 on 0" in found.out
    assert "exact McNemar p = 0.5" in found.out
    assert "it does not win: a lead like this is within noise" in found.out
    assert not run.folder.ensemble_dir.exists()
    asked = pawtune(capsys, "test", "made", "--ensemble", "--runs-dir", runs_dir)
    assert asked.code == 2
    assert "make it with `pawtune ensemble made`" in asked.err
    as_json = pawtune(capsys, "ensemble", "made", "--json", "--runs-dir", runs_dir).json
    assert (as_json["wins"], as_json["kept"], as_json["correct"]) == (False, False, 30)


def test_shared_mistakes_stay(run: Run, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trial_id in ("0001", "0002", "0003"):
        predict(run, trial_id, range(0, 6))
    found = pawtune(capsys, "ensemble", "made", "--runs-dir", runs_dir)
    assert "its log loss is no lower than that of 0001 alone" in found.out


def test_who_cannot_vote_is_told(run: Run) -> None:
    run.folder.trial("0002").best_predictions.unlink()
    with pytest.raises(UserError, match="but trial 0002 kept no validation predictions"):
        make_ensemble(run.folder, run.rows(), run.manifest(), "val_accuracy", top=3)
    with pytest.raises(UserError, match="needs two trials or more, received top=1"):
        run.ensemble(top=1)


def test_nets_from_random_weights_are_not_averaged(
    run: Run, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = pawtune(capsys, "ensemble", "made", "--soup", "--runs-dir", runs_dir)
    assert refused.code == 2
    assert "says nothing of those of the best trial, 0001 (conv)" in refused.err
    assert "leave out --soup for a vote" in refused.err


def test_an_average_needs_kept_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = RunMaker(tmp_path / "runs", make_images(tmp_path / "images", ["a", "b"]))
    for regularisation in (0.1, 1.0):
        model = TransferSpec(head="ridge", regularisation=regularisation)
        maker.add(TrialSpec(name=f"ridge-{regularisation}", model=model), epochs=1)
    maker.finish()
    refused = pawtune(capsys, "ensemble", "made", "--soup", "--runs-dir", tmp_path / "runs")
    assert refused.code == 2
    assert "itself included, received 2, of which 0 kept weights" in refused.err


def test_the_record_of_a_kept_vote_goes_on_its_card(run: Run) -> None:
    members = [{"trial_id": trial_id} for trial_id in ("0001", "0002")]
    record = {"members": members, "accuracy": 0.5}
    write_json(run.folder.ensemble_dir / "ensemble.json", record)
    kept = run.choose(kind="ensemble").record
    assert kept is not None
    assert [member["name"] for member in kept.as_dict()["members"]] == ["tutorial_1", "tutorial_2"]
