"""Whether an order holds, by hand."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import pytest

from pawtune.models.baselines import baseline
from pawtune.search.cli.tables.trust import confirmation_lines
from pawtune.search.errors import UserError
from pawtune.search.objective import Metric, Objective
from pawtune.search.retraining.confirm import (
    Confirmation,
    Confirmed,
    Outcome,
    assess,
    noise_of_means,
)
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import write_json
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images


def confirmed(trial_id: str, searched: float, others: Sequence[float | None]) -> Confirmed:
    repeats = [
        Outcome(10_000 * number, score, 1 if score is not None else None, 4, None if score else "x")
        for number, score in enumerate(others, start=1)
    ]
    good = [score for score in others if score is not None]
    scores = [searched, *good]
    return Confirmed(
        trial_id=trial_id,
        name=f"conv-{trial_id}",
        planned_epochs=4,
        searched=Outcome(0, searched, 1, 4),
        repeats=repeats,
        mean=fmean(scores),
        deviation=stdev(scores) if len(scores) > 1 else 0.0,
        lowest=min(scores),
        highest=max(scores),
        mean_of_others=fmean(good) if good else None,
    )


def judged(*trials: Confirmed, metric: Metric = "val_accuracy") -> Confirmation:
    return assess(trials, Objective(metric), len(trials[0].repeats))


def told(result: Confirmation) -> str:
    return " ".join(confirmation_lines(result))


def test_a_clear_lead_holds() -> None:
    result = judged(
        confirmed("0001", 0.95, [0.94, 0.95, 0.96]), confirmed("0002", 0.94, [0.80, 0.81, 0.82])
    )
    # Pooled deviation 0.01 with 4 degrees of freedom: 2.776 * 0.01 * sqrt(2 / 3)
    assert result.noise == pytest.approx(0.02267, abs=1e-4)
    assert (result.first, result.second) == ("0001", "0002")
    assert result.lead == pytest.approx(0.14)
    assert result.holds
    assert result.suggested == "0001"
    assert "The order at the top holds: 0001 is ahead of 0002 by 0.1400" in told(result)


def test_a_lucky_winner_is_found_out() -> None:
    result = judged(
        confirmed("0001", 0.95, [0.80, 0.81, 0.82]),
        confirmed("0002", 0.94, [0.94, 0.95, 0.96]),
        confirmed("0003", 0.93, [0.93, 0.94, 0.95]),
    )
    assert (result.first, result.second, result.suggested) == ("0002", "0001", "0002")
    assert not result.holds
    assert "0001 had 0.9500 in the search, has 0.8100 on average with other seeds" in told(result)
    assert "does not hold: 0002 is ahead of 0001 by 0.1400" in told(result)


def test_a_lead_within_noise_changes_nothing() -> None:
    result = judged(
        confirmed("0001", 0.95, [0.93, 0.95, 0.94]), confirmed("0002", 0.94, [0.94, 0.96, 0.95])
    )
    assert result.first == "0002"
    assert result.suggested == "0001"
    assert "too close to call: 0002 and 0001 differ by 0.0100" in told(result)
    assert "Nothing speaks against 0001." in told(result)


def test_a_lower_loss_is_better() -> None:
    result = judged(
        confirmed("0001", 0.1, [0.50, 0.51, 0.52]),
        confirmed("0002", 0.2, [0.20, 0.21, 0.22]),
        metric="val_loss",
    )
    assert result.suggested == "0002"
    assert result.lead == pytest.approx(0.3)


def test_one_seed_cannot_tell() -> None:
    result = judged(confirmed("0001", 0.95, [0.9]), confirmed("0002", 0.94, [0.95]))
    assert result.noise is None
    assert result.suggested == "0001"
    assert "one seed cannot tell: give --seeds 3" in told(result)


def test_a_trial_that_only_its_own_seed_trains_is_not_suggested() -> None:
    result = judged(confirmed("0001", 0.95, [None, None]), confirmed("0002", 0.9, [0.9, 0.9]))
    assert result.suggested == "0002"
    assert "0001 failed with seed 10000: x" in told(result)
    assert "came to nothing with other seeds" in told(result)


def test_the_noise_is_pooled_over_all_trials() -> None:
    trials = [confirmed("0001", 0.9, [0.1, 0.3]), confirmed("0002", 0.9, [0.5, 0.5, 0.5])]
    # squares 0.02, 1 + 2 degrees of freedom
    expected = 3.1824463 * (0.02 / 3 * (1 / 2 + 1 / 3)) ** 0.5
    assert noise_of_means(trials, 2, 3) == pytest.approx(expected)


def test_a_run_without_a_finished_epoch_is_refused(runs_dir: Path, tmp_path: Path) -> None:
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"]))
    maker.add(baseline("tutorial_1", 4), epochs=0, status="failed", reason="E: no")
    with pytest.raises(UserError, match="confirm needs a trial with a finished epoch"):
        Run(maker.finish()).confirm()


def test_the_leaderboard_says_what_confirm_found(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"], 100))
    maker.add(baseline("tutorial_1", 4), accuracy=0.9)
    maker.add(baseline("tutorial_2", 4), accuracy=0.8)
    record = maker.finish().confirm_dir / "confirm.json"
    told = "with other seeds, trial 0002 came out ahead"
    for suggested, said in (("0001", False), ("0002", True), ("\x1b[2J", False)):
        write_json(record, {"suggested": suggested})
        board = pawtune(capsys, "leaderboard", "made", "--runs-dir", runs_dir)
        assert (told in board.out) is said
        assert "\x1b[2J" not in board.out


@pytest.mark.parametrize("verb", ["confirm", "refit"])
def test_a_cluster_that_the_folder_names_is_not_joined(
    verb: str, runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_images(tmp_path / "images", ["a", "b"])
    maker = RunMaker(runs_dir, images, overrides=["resources.address=10.1.2.3:6379"])
    maker.add(baseline("tutorial_1", 4))
    maker.finish()
    refused = pawtune(capsys, verb, "made", "--runs-dir", runs_dir)
    assert refused.code == 2
    assert "joined again only where you name it" in refused.err
    assert "--address local to use this machine" in refused.err
