"""A worker's report, through Tune's dictionaries and back."""

import math

import pytest

from pawtune.search.trial_report import METRICS, BestEpoch, TrialReport

REPORTS = [
    TrialReport(),
    TrialReport(
        epoch=3,
        metrics={name: number / 8 for number, name in enumerate(METRICS)},
        best=BestEpoch(epoch=2, objective=0.25, val_accuracy=0.75, val_loss=0.25),
        num_weights=7,
        done=True,
    ),
    TrialReport(failure="DivergedError: loss must stay finite", done=True),
    TrialReport(storage="the run folder could not be used for 60 s", done=True),
]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_survives_tune(report: TrialReport) -> None:
    added_by_tune = {"trial_id": "a1b2", "config": {"spec": {}}, "time_total_s": math.inf}
    assert TrialReport.from_result({**report.to_result(), **added_by_tune}) == report


def test_a_failure_has_no_objective_that_a_scheduler_could_judge() -> None:
    assert TrialReport(failure="broken", done=True).to_result() == {
        "done": True, "failure": "broken",
    }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_refused_where_it_is_reported(value: float) -> None:
    with pytest.raises(ValueError, match=r"val_loss of epoch 2 must be finite, received (nan|inf)"):
        TrialReport(epoch=2, metrics={"val_loss": value})


def test_the_best_epoch_of_a_row() -> None:
    row = {"epoch": 4, "val_accuracy": 0.5, "val_loss": 0.75, "val_balanced_accuracy": 0.25}
    assert BestEpoch.of_row(row, "val_balanced_accuracy") == BestEpoch(4, 0.25, 0.5, 0.75)
