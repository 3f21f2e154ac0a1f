"""Parts that several figures of the report share: points, legends and words for trials."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from pawtune.models.words import count
from pawtune.search.report.data import ReportData, TrialView
from pawtune.search.report.figures import (
    FAILED,
    INK,
    SURFACE,
    kind_mark,
    mark_trials,
)

METRIC_WORDS = {
    "val_accuracy": "validation accuracy",
    "val_balanced_accuracy": "balanced validation accuracy",
    "val_loss": "validation loss",
}
NAME_CHARACTERS = 22
MAX_DRAWN = 400  # trials in one figure: 1,500 in all of them would be a page of 10 MB
LEAST_MISTAKES = 0.004  # keeps an accuracy of 1 on a stretched axis
# What people look for first comes first: a later one gives way where it would be too near.
STRETCHED_TICKS = (0.9, 0.5, 0.97, 0.99, 0.7, 0.95, 0.8, 0.98, 1.0, 0.995, 0.6, 0.4, 0.2, 0.0)


def metric_words(data: ReportData) -> str:
    """What the search optimises, in words."""
    metric = data.objective.metric
    return METRIC_WORDS.get(metric, metric)


def short(name: str, characters: int = NAME_CHARACTERS) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= characters else f"{name[: characters - 1]}…"


def best_of(trials: Sequence[TrialView], most: int = MAX_DRAWN) -> list[TrialView]:
    """The trials, or the best of them where a figure of all would be too large to send."""
    kept = {t.trial_id for t in sorted(trials, key=lambda trial: trial.place)[:most]}
    return [trial for trial in trials if trial.trial_id in kept]


def count_drawn(drawn: Sequence[TrialView], among: Sequence[TrialView]) -> str:
    """How many trials a figure shows: `87 trials`, or `the best 400 of 1,500 trials`."""
    if len(drawn) == len(among):
        return count(len(drawn), "trial")
    return f"the best {len(drawn)} of {count(len(among), 'trial')}"


def stopped_words(trials: Sequence[TrialView]) -> str:
    """How trials ended that did not run to their end, as far as any of these did: a word or two."""
    words = sorted({t.row.state for t in trials if t.row.status == "stopped"}, reverse=True)
    return " or ".join(words)


def tips(data: ReportData) -> dict[str, str]:
    """The texts that appears when the pointer is over a trial, by trial id."""
    texts = {}
    for trial in data.trials:
        accuracy = trial.row.best_val_accuracy
        score = "no epoch" if accuracy is None else f"validation accuracy {accuracy:.4f}"
        texts[trial.trial_id] = f"{trial.row.name} ({trial.row.state}): {score}"
    return texts


def compact(value: float, position: float = 0.0) -> str:
    """A number for a crowded axis.

    >>> compact(2_586_434), compact(100_000), compact(0.5), compact(0.000123)
    ('2.59M', '100k', '0.5', '1.2e-4')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.1e}".replace("e-0", "e-") if 0 < value < 1e-3 else f"{value:.3g}"


def stretch_accuracy(
    axes: Axes, which: Literal["x", "y"], scores: Sequence[float], tick_gap: float = 0.09
) -> str:
    """Gives accuracies near 1 the room they need where others are far below.

    The axis becomes logarithmic in the share of mistakes: from 0.95 to 0.975 is as far as from 0.5
    to 0.75. Losses, and accuracies that lie close together, keep their even axis.

    Args:
        axes: Where the scores are drawn.
        which: The axis of the scores.
        scores: All that must be on it.
        tick_gap: The least distance between two ticks, as a part of the axis.

    Returns:
        What to tell the reader: a sentence, or nothing.
    """
    low, high = min(scores), max(scores)
    if not (low >= 0 and 0.9 <= high <= 1 and high - low >= 0.15):
        return ""
    functions = (_stretch, _unstretch)
    (axes.set_xscale if which == "x" else axes.set_yscale)("function", functions=functions)
    axis = axes.xaxis if which == "x" else axes.yaxis
    ends = _stretch(np.array([low, high]))
    margin = 0.07 * (ends[1] - ends[0])
    limits = _unstretch(ends + [-margin, margin])
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
    ticks: list[float] = []
    for tick in STRETCHED_TICKS:
        far = all(
            abs(_stretch(tick) - _stretch(other)) >= tick_gap * (ends[1] - ends[0])
            for other in ticks
        )
        if limits[0] <= tick <= limits[1] and far:
            ticks.append(tick)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(compact)
    return " The axis of accuracy is stretched towards 1."


def _stretch(accuracy: Any) -> Any:
    return -np.log10(np.maximum(1 + LEAST_MISTAKES - np.asarray(accuracy), 1e-9))


def _unstretch(value: Any) -> Any:
    return 1 + LEAST_MISTAKES - 10 ** -np.asarray(value)


def scatter_by_kind(
    axes: Axes,
    trials: Sequence[TrialView],
    xs: Sequence[float],
    ys: Sequence[float],
    size: float = 20.0,
) -> None:
    """Points by kind: filled where the trial ran to its end, hollow where it was stopped."""
    for kind in sorted({trial.kind for trial in trials}):
        for hollow in (False, True):
            chosen = [
                place
                for place, trial in enumerate(trials)
                if trial.kind == kind and (trial.row.status == "stopped") == hollow
            ]
            if not chosen:
                continue
            colour = kind_mark(kind).colour
            points = axes.scatter(
                [xs[place] for place in chosen],
                [ys[place] for place in chosen],
                size,
                SURFACE if hollow else colour,
                marker=kind_mark(kind).marker,
                edgecolors=colour,
                linewidths=1.1,
                zorder=3,
            )
            mark_trials(points, [trials[place].trial_id for place in chosen])


def kind_legend(
    axes: Axes, trials: Sequence[TrialView], line: str | None = None, failed: bool = False
) -> None:
    """A legend above the axes for the kinds that `trials` have."""
    handles = [Line2D([], [], color=INK, label=line)] if line else []
    for kind in sorted({trial.kind for trial in trials}, reverse=True):
        handles.append(_dot(kind_mark(kind).colour, kind_mark(kind).marker, kind))
    if failed:
        handles.append(_dot(FAILED, "x", "failed"))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=len(handles),
        handlelength=1.0,
        columnspacing=1.1,
        handletextpad=0.4,
        borderpad=0,
    )


def whole_numbers(axes: Axes) -> None:
    """Ticks at whole numbers only: epochs and trials have no halves."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _dot(colour: str, marker: str, label: str) -> Line2D:
    return Line2D(
        [], [], color=colour, marker=marker, linestyle="none", markersize=4.5, label=label
    )
