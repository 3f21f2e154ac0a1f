"""Figures of how a search went: baselines, optimisation history, learning curves, time line."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pawtune.models.words import count
from pawtune.search.report.data import ReportData, TrialView
from pawtune.search.report.figures import (
    FAILED,
    INK,
    MUTED,
    SURFACE,
    Drawing,
    kind_mark,
    mark_trial,
    mark_trials,
    new_axes,
    styled,
    to_svg,
)
from pawtune.search.report.trial_marks import (
    best_of,
    count_drawn,
    kind_legend,
    metric_words,
    scatter_by_kind,
    short,
    stopped_words,
    stretch_accuracy,
    tips,
    whole_numbers,
)
from pawtune.search.results.metrics import wilson_interval

ROW_INCHES = 0.27
MANY_TRIALS = 60  # from here on lines and bars get thinner


def draw_standing(data: ReportData) -> Drawing | None:
    """The best trial against the baselines, with intervals."""
    chosen = [trial for trial in data.ranked if trial.usable and trial.baseline]
    best = data.best
    if best is None:
        return None
    proposals = [trial for trial in data.ranked if trial.usable and not trial.baseline]
    rows = [*proposals[:3], *chosen]
    rows.sort(key=lambda trial: trial.row.best_val_accuracy or 0.0)
    with styled():
        axes = new_axes(0.75 + ROW_INCHES * len(rows))
        ends: list[float] = []
        for place, trial in enumerate(rows):
            accuracy = trial.row.best_val_accuracy or 0.0
            colour = kind_mark(trial.kind).colour
            if data.num_validation:
                correct = round(accuracy * data.num_validation)
                interval = wilson_interval(correct, data.num_validation)
                (bar,) = axes.plot(interval, [place] * 2, c=colour)
                mark_trial(bar, trial.trial_id)  # it fades with its marker
                ends += interval
            marker = kind_mark(trial.kind).marker
            points = axes.scatter([accuracy], [place], 34, colour, marker=marker, zorder=3)
            mark_trials(points, [trial.trial_id])
        axes.set_yticks(range(len(rows)), [short(trial.row.name) for trial in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        if data.majority_share is not None:
            axes.axvline(data.majority_share, color=MUTED, linestyle=(0, (3, 3)), linewidth=1.2)
        axes.grid(axis="y", visible=False)
        ends += [trial.row.best_val_accuracy or 0.0 for trial in rows]
        shown = [*ends, data.majority_share or min(ends)]
        stretched = stretch_accuracy(axes, "x", shown, tick_gap=0.11)
        axes.set_xlabel("validation accuracy of the best epoch")
        listing = ", ".join(f"{t.row.name} {t.row.best_val_accuracy:.4f}" for t in rows[::-1])
        svg = to_svg(axes, "standing", f"Validation accuracy, best first: {listing}.", tips(data))
    shown_kinds = ["best trials"] if proposals else []
    shown_kinds += ["tutorial baselines"] if chosen else []
    caption = f"The {' and the '.join(shown_kinds)}."
    if data.num_validation:
        caption += " Bars are 95% intervals (Wilson) for this number of validation images."
    if data.majority_share is not None:
        caption += " The dashed line is always naming the most frequent class."
    return Drawing(svg, caption + stretched)


def draw_history(data: ReportData) -> Drawing | None:
    """Each trial's score in the order of proposal, and the best so far."""
    if not data.usable:
        return None
    number = {trial.trial_id: place for place, trial in enumerate(data.trials, start=1)}
    scores = np.array([data.score(trial) for trial in data.usable])
    places = np.array([number[trial.trial_id] for trial in data.usable])
    running = np.minimum if data.objective.mode == "min" else np.maximum
    best = running.accumulate(scores)
    with styled():
        axes = new_axes(2.7)
        axes.step(
            np.append(places, len(data.trials)), np.append(best, best[-1]), where="post", color=INK
        )
        scatter_by_kind(axes, data.usable, places.tolist(), scores.tolist())
        failed = [trial for trial in data.trials if trial.row.status == "failed"]
        if failed:
            crosses = axes.scatter(
                [number[trial.trial_id] for trial in failed],
                [0.03] * len(failed),
                22,
                FAILED,
                marker="x",
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
            mark_trials(crosses, [trial.trial_id for trial in failed])
        stretched = stretch_accuracy(axes, "y", scores.tolist())
        whole_numbers(axes)
        axes.set_xlim(0.5 - 0.02 * len(data.trials), 0.5 + 1.02 * len(data.trials))
        axes.set_xlabel("trial, in the order of proposal")
        axes.set_ylabel(metric_words(data))
        kind_legend(axes, data.usable, line="best so far", failed=bool(failed))
        text = (
            f"{metric_words(data).capitalize()} of {count(len(scores), 'trial')} in the order of "
            f"proposal; the best so far goes from {best[0]:.4f} to {best[-1]:.4f}."
        )
        svg = to_svg(axes, "history", text, tips(data))
    stopped = stopped_words(data.usable)
    text = f"Hollow markers were {stopped}; the line" if stopped else "The line"
    return Drawing(svg, f"{text} is the best so far.{stretched}")


def draw_learning_curves(data: ReportData, family: str) -> Drawing | None:
    """Validation metric by epoch of every trial of a family."""
    with_epochs = [trial for trial in data.of_family(family) if trial.epochs]
    trials = best_of(with_epochs)
    if not trials:
        return None
    metric, best = data.objective.metric, data.best
    leader = next((trial for trial in data.ranked if trial in trials and trial.usable), None)
    thin = 0.8 if len(trials) > MANY_TRIALS else 1.2
    with styled():
        axes = new_axes(2.9)
        for trial in trials:
            leads = leader is not None and trial.trial_id == leader.trial_id
            _curve(axes, trial, metric, INK if leads else kind_mark(trial.kind).colour,
                   width=2.2 if leads else thin, faint=not leads)  # fmt: skip
        drawn = [value for trial in trials for value in trial.values(metric)]
        if leader is not None and _has_training_curve(leader, metric):
            epochs = [epoch["epoch"] for epoch in leader.epochs]
            values = leader.values("accuracy")
            axes.plot(epochs, values, color=INK, ls=(0, (3, 2)), linewidth=1.2)
            drawn += values
        stretched = stretch_accuracy(axes, "y", drawn)
        whole_numbers(axes)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric_words(data))
        axes.set_title(f"{family}: {count_drawn(trials, with_epochs)}")
        _curve_legend(axes, trials, leader, metric)
        early = sum(trial.row.state == "stopped early" for trial in trials)
        text = (
            f"{metric_words(data).capitalize()} by epoch of "
            f"{count(len(trials), f'{family} trial')}"
            + (f", {early} of them stopped early" if early else "")
            + (f"; the best is {leader.row.name}." if leader else ".")
        )
        svg = to_svg(axes, f"curves-{family}", text, tips(data))
    statuses = {trial.row.status for trial in trials}
    stopped = stopped_words(trials)
    caption = f"An open end is a trial {stopped}. " if stopped else ""
    caption += "A cross is a failure. " if "failed" in statuses else ""
    if best is not None and leader is not None:
        caption += f"In ink: {short(leader.row.name, 60)}, the best of its family."
    return Drawing(svg, caption.strip() + stretched)


def _curve(
    axes: Axes, trial: TrialView, metric: str, colour: str, width: float, faint: bool
) -> None:
    epochs = [epoch["epoch"] for epoch in trial.epochs]
    values = trial.values(metric)
    (line,) = axes.plot(epochs, values, color=colour, linewidth=width, alpha=0.55 if faint else 1)
    mark_trial(line, trial.trial_id)
    if len(epochs) == 1:
        line.set_marker(".")
    ends = {"stopped": ("o", SURFACE), "failed": ("x", FAILED)}
    if trial.row.status in ends:
        marker, fill = ends[trial.row.status]
        edge = FAILED if marker == "x" else colour
        (end,) = axes.plot(
            epochs[-1:], values[-1:], marker, color=edge, markerfacecolor=fill, markersize=4
        )
        mark_trial(end, trial.trial_id)


def _has_training_curve(leader: TrialView, metric: str) -> bool:
    """Whether the best trial's accuracy in training has a line: a head that was solved has none."""
    return metric == "val_accuracy" and len(leader.epochs) > 1


def _curve_legend(
    axes: Axes, trials: Sequence[TrialView], leader: TrialView | None, metric: str
) -> None:
    others = [trial for trial in trials if leader is None or trial.trial_id != leader.trial_id]
    kinds = sorted({trial.kind for trial in others}, reverse=True)
    handles = [Line2D([], [], color=kind_mark(kind).colour, label=kind) for kind in kinds]
    if leader is not None:
        best = Line2D([], [], color=INK, linewidth=2.2, label="best")
        if len(leader.epochs) == 1:
            best.set(marker=".", linestyle="none")
        handles.append(best)
        if _has_training_curve(leader, metric):
            dashes = (0, (3, 2))
            handles.append(Line2D([], [], color=INK, linestyle=dashes, label="best, in training"))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=1.4)


def _time_unit(seconds: float) -> tuple[str, float]:
    """The unit of an axis of so many seconds, and its length in seconds."""
    units = (("hours", 3600.0), ("minutes", 60.0))
    return next(((name, size) for name, size in units if seconds >= 3 * size), ("seconds", 1.0))


def draw_time_line(data: ReportData) -> Drawing | None:
    """Which trial ran when: how full the workers were."""
    ran = [t for t in data.trials if t.started is not None and t.finished is not None]
    if not ran:
        return None
    start = min(trial.started or 0.0 for trial in ran)
    unit, unit_s = _time_unit(max(trial.finished or 0.0 for trial in ran) - start)
    lanes: list[float] = []  # when each lane is free again
    with styled():
        axes = new_axes(1.0)
        for trial in sorted(ran, key=lambda trial: trial.started or 0.0):
            begun, ended = (trial.started or 0.0) - start, (trial.finished or 0.0) - start
            lane = next((n for n, free in enumerate(lanes) if free <= begun + 0.5), len(lanes))
            lanes[lane : lane + 1] = [ended]
            colour = FAILED if trial.row.status == "failed" else kind_mark(trial.kind).colour
            bar = axes.barh(
                lane, (ended - begun) / unit_s, left=begun / unit_s, height=0.8, color=colour,
                edgecolor=SURFACE, linewidth=0.3 if len(ran) > MANY_TRIALS else 0.8,
                alpha=0.55 if trial.row.status == "stopped" else 1,
            )[0]  # fmt: skip
            mark_trial(bar, trial.trial_id)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_size_inches(5.0, 0.95 + 0.2 * min(len(lanes), 16))
        axes.set_ylim(len(lanes) - 0.4, -0.6)
        axes.set_yticks([])
        axes.set_ylabel("at once" if len(lanes) > 1 else "")
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{unit} since the first trial")
        kinds = sorted({trial.kind for trial in ran}, reverse=True)
        handles = [
            Line2D([], [], color=kind_mark(kind).colour, linewidth=5, label=kind) for kind in kinds
        ]
        if any(trial.row.status == "failed" for trial in ran):
            handles.append(Line2D([], [], color=FAILED, linewidth=5, label="failed"))
        axes.legend(
            handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, handlelength=1.0
        )
        end = max(trial.finished or 0.0 for trial in ran) - start
        text = f"{count(len(ran), 'trial')} over {end:.0f} seconds, up to {len(lanes)} at once."
        svg = to_svg(axes, "timeline", text, tips(data))
    stopped = stopped_words(ran)
    return Drawing(svg, "One bar a trial" + (f"; pale bars were {stopped}." if stopped else "."))
