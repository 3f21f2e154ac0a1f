"""The parts of the report's page: which figures each has, and what is missing, in words."""

from dataclasses import dataclass

from pawtune.models.words import count
from pawtune.search.report import history_figures as history
from pawtune.search.report import result_figures as results
from pawtune.search.report import space_figures as space
from pawtune.search.report.data import ReportData
from pawtune.search.report.figures import Drawing
from pawtune.search.report.importance import MIN_TRIALS
from pawtune.search.report.trial_marks import best_of, count_drawn
from pawtune.search.report.words import NOTHING_TO_TEST, advice

REPRODUCE = (
    "The same seed gives the same splits and the same training; proposals also depend on the order "
    "in which trials end, so only a search of one trial at a time proposes the same again."
)


@dataclass(frozen=True)
class Section:
    """A part of the page: drawings, and what is missing in words."""

    key: str
    title: str
    intro: str = ""
    drawings: tuple[Drawing, ...] = ()
    missing: tuple[str, ...] = ()
    small: bool = False


def build_sections(data: ReportData) -> list[Section]:
    """All parts, in the order of the page."""
    families = data.families
    sections = [
        _drawn(
            "result",
            "Result",
            [history.draw_standing(data), history.draw_history(data)],
            "No trial has finished an epoch, so there is no result yet.",
        ),
        _test_section(data),
        Section(
            "leaderboard",
            "Leaderboard",
            missing=() if data.trials else ("No trial was proposed yet.",),
        ),
        _drawn(
            "curves",
            "Learning curves",
            [history.draw_learning_curves(data, family) for family in families],
            "No trial has finished an epoch.",
        ),
        _parameter_section(data),
        _slice_section(data),
        _drawn(
            "cost",
            "Cost",
            [
                results.draw_trade_off(data, cost)
                for cost in (*results.COST_WORDS, *results.MEASURED_WORDS)
            ],
            "Two trials with a finished epoch are needed to compare size and time.",
        ),
        Section("mistakes", "Mistakes", "The best trial's best epoch on the validation split."),
        Section("data", "Data"),
        Section("advice", "More images", advice(data)),
        _drawn(
            "budget",
            "Budget",
            [history.draw_time_line(data)],
            "No trial has ended, so there are no times yet.",
        ),
    ]
    failed = sum(trial.row.status == "failed" for trial in data.trials)
    if failed:
        sections.append(Section("failures", "Failures", f"{count(failed, 'trial')} failed."))
    return [*sections, Section("reproduce", "Reproduce", REPRODUCE)]


def _test_section(data: ReportData) -> Section:
    if data.looks:
        text = "The held-out split as pawtune test recorded it; this page does not look at it."
        return Section("test", "Test", text)
    nobody = f"Nobody has looked yet: pawtune test {data.run.name} looks once and records it."
    if data.best is None:
        nobody = f"Nobody has looked, and {NOTHING_TO_TEST}."
    return Section("test", "Test", missing=(nobody,))


def _drawn(key: str, title: str, drawings: list[Drawing | None], missing: str) -> Section:
    drawn = tuple(drawing for drawing in drawings if drawing is not None)
    return Section(key, title, drawings=drawn, missing=() if drawn else (missing,))


def _parameter_section(data: ReportData) -> Section:
    missing = []
    important = [space.draw_importance(data, family) for family in data.families]
    for family, drawing in zip(data.families, important, strict=True):
        if drawing is None:
            usable = sum(trial.usable for trial in data.of_family(family))
            missing.append(
                f"{family}: importance needs {MIN_TRIALS} trials that differ, lie in the search "
                f"space and finished an epoch; {count(usable, 'trial')} finished one."
            )
    parallel = [space.draw_parallel(data, family) for family in data.families]
    # The page fills its columns one after the other: a family has a column.
    drawings = [drawing for pair in zip(important, parallel, strict=True) for drawing in pair]
    drawn = tuple(drawing for drawing in drawings if drawing is not None)
    stopped = any(trial.row.status == "stopped" for trial in data.usable)
    reached = "; stopped trials count with the best they had reached" if stopped else ""
    intro = []
    if any(important):
        intro.append(
            "Bars: how much a parameter had to do with being among the best fifth of its family "
            f"(PED-ANOVA{reached})."
        )
    if any(parallel):
        intro.append("Lines: every trial through its parameters.")
    return Section(
        "parameters",
        "Parameters",
        " ".join(intro),
        drawn,
        tuple(missing) or (() if drawn else ("No trial was proposed yet.",)),
    )


def _slice_section(data: ReportData) -> Section:
    drawings, shown = tuple(space.draw_slices(data)), best_of(data.usable)
    return Section(
        "slices",
        "Slices",
        f"The score against one parameter at a time; {count_drawn(shown, data.usable)}. Where "
        "accuracies reach from low to near 1, their axis is stretched towards 1."
        if drawings
        else "",
        drawings,
        () if drawings else ("Two trials that differ are needed to compare parameters.",),
        small=True,
    )
