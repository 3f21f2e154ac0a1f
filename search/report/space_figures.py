"""Figures of the search space: importance, parallel coordinates, slices."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pawtune.models.words import count
from pawtune.search.report.data import ReportData, TrialView
from pawtune.search.report.figures import (
    GRID,
    INK,
    MUTED,
    Drawing,
    kind_mark,
    mark_trial,
    new_axes,
    styled,
    to_svg,
)
from pawtune.search.report.importance import rank_parameters
from pawtune.search.report.trial_marks import (
    best_of,
    compact,
    count_drawn,
    metric_words,
    scatter_by_kind,
    short,
    stretch_accuracy,
    tips,
)

ROW_INCHES = 0.25
SLICE_INCHES = (2.5, 1.75)
LOGARITHMIC = ("learning_rate", "regularisation")
MAX_CHARACTERS = 42  # that fit below an axis, side by side
GAP = 1.5  # characters between two labels
MAX_BRIGHT = 10
MAX_NAMED = 6  # values of an axis of numbers up to which each is named
SLICE_CHARACTERS = 26  # that fit below a slice


def draw_importance(data: ReportData, family: str) -> Drawing | None:
    """Which parameters of a family decided; None where too few trials can tell."""
    shares = rank_parameters(data, family)
    if shares is None:
        return None
    known = {name for trial in data.of_family(family) for name in trial.row.params}
    shares = {_as_in_leaderboard(name, known): share for name, share in shares.items()}
    names, values = list(shares), list(shares.values())
    with styled():
        axes = new_axes(0.6 + ROW_INCHES * len(names))
        axes.barh(range(len(names)), values, height=0.62, color=kind_mark(family).colour)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        for place, value in enumerate(values):
            axes.annotate(
                f"{value:.0%}", (value, place), (4, 0), textcoords="offset points",
                va="center", color=MUTED,
            )  # fmt: skip
        axes.set_xlim(0, max(values) * 1.12)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(family)
        listing = ", ".join(f"{name} {value:.0%}" for name, value in shares.items())
        svg = to_svg(axes, f"importance-{family}", f"{family}: {listing}.")
    usable = sum(t.usable for t in data.of_family(family))
    return Drawing(svg, f"From {count(usable, f'{family} trial')}.")


def _as_in_leaderboard(name: str, known: Set[str]) -> str:
    """A parameter of the search space as trials call it: `dropout` for `head_dropout`."""
    plain = name.removeprefix("head_").removeprefix("conv_")
    return plain if plain in known and name not in known else name


def varied_parameters(trials: Sequence[TrialView]) -> list[str]:
    """Parameters with two values or more among the trials that have them, in the first's order."""
    names = dict.fromkeys(name for trial in trials for name in trial.row.params)
    return [
        name
        for name in names
        if len({str(t.row.params[name]) for t in trials if name in t.row.params}) > 1
    ]


def place_values(values: Sequence[Any], name: str) -> tuple[list[float], dict[float, str]]:
    """Where values of a parameter stand on an axis from 0 to 1, and the labels of that axis.

    Numbers stand where their value is (logarithmic for a learning rate), everything else has one
    place a value. A trial that does not have the parameter (None) has no place: NaN.
    """
    known = [value for value in values if value is not None]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    distinct = sorted(set(known), key=None if numeric else _natural)
    if numeric and len(distinct) > 1:
        scale = np.log10 if name in LOGARITHMIC and distinct[0] > 0 else np.asarray
        low, high = float(scale(distinct[0])), float(scale(distinct[-1]))
        at = {value: (float(scale(value)) - low) / (high - low) for value in distinct}
        if len(distinct) <= MAX_NAMED:
            return [at.get(v, math.nan) for v in values], {p: compact(v) for v, p in at.items()}
        middle = low + (high - low) / 2
        middle = 10**middle if scale is np.log10 else middle
        labels = {0.0: compact(distinct[0]), 0.5: compact(middle), 1.0: compact(distinct[-1])}
        return [at.get(v, math.nan) for v in values], labels
    step = 1 / max(1, len(distinct) - 1)
    at = {value: n * step if len(distinct) > 1 else 0.5 for n, value in enumerate(distinct)}
    return [at.get(v, math.nan) for v in values], {
        place: _label(value) for value, place in at.items()
    }


def _natural(value: Any) -> tuple[Any, ...]:
    """Sort key under which "32-64" comes before "128-256"."""
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in str(value).split("-"))


def _label(value: Any) -> str:
    return compact(value) if isinstance(value, float) else short(str(value), 14)


def thin_labels(labels: Mapping[float, str], characters: int = MAX_CHARACTERS) -> dict[float, str]:
    """As many labels as stand on an axis without touching, its ends among them.

    The outermost begin and end with the axis, the others are centred on their place.

    Args:
        labels: Labels by place, 0 to 1, in order.
        characters: Number of characters that fit on the axis.

    >>> thin_labels({0.0: "16", 0.06: "32", 0.2: "64", 1.0: "256"}, characters=20)
    {0.0: '16', 0.2: '64', 1.0: '256'}
    """

    def reach(place: float, text: str) -> tuple[float, float]:
        start = (
            place * (characters - len(text))
            if place in (0.0, 1.0)
            else (place * characters - len(text) / 2)
        )
        return start, start + len(text)

    chosen: dict[float, str] = {}
    ends = [place for place in labels if place in (0.0, 1.0)]
    between = sorted(labels.keys() - set(ends), key=lambda place: abs(place - 0.5))
    for place in [*ends, *between]:
        start, stop = reach(place, labels[place])
        if all(
            stop + GAP <= reach(*other)[0] or reach(*other)[1] + GAP <= start
            for other in chosen.items()
        ):
            chosen[place] = labels[place]
    return dict(sorted(chosen.items()))


def draw_parallel(data: ReportData, family: str) -> Drawing | None:
    """Every trial as a line through its parameters; the best stand out.

    Parameters are rows, not columns: their names and values then fit on a phone.
    """
    usable = [trial for trial in data.of_family(family) if trial.usable]
    trials = best_of(usable)
    names = varied_parameters(trials)
    if len(trials) < 3 or not names:
        return None
    best_first = sorted(trials, key=lambda trial: trial.place)
    bright = {t.trial_id for t in best_first[: min(MAX_BRIGHT, -(-len(trials) // 5))]}
    columns = {name: [trial.row.params.get(name) for trial in trials] for name in names}
    columns[metric_words(data)] = [data.score(trial) for trial in trials]
    with styled():
        axes = new_axes(0.45 + 0.48 * len(columns))
        spots = []
        for row, (name, values) in enumerate(columns.items()):
            places, labels = place_values(values, name)
            spots.append(places)
            axes.axhline(row, color=GRID, linewidth=0.8, zorder=1)
            for place, label in thin_labels(labels).items():
                # The outermost begin and end with the axis: no long one runs into a name.
                side, shift = {0.0: ("left", 3), 1.0: ("right", -3)}.get(place, ("center", 0))
                axes.annotate(
                    label, (place, row), (shift, -11), textcoords="offset points",
                    ha=side, fontsize=8.5, color=MUTED, zorder=5,
                )  # fmt: skip
        rows = range(len(columns))
        for number in sorted(range(len(trials)), key=lambda n: -trials[n].place):
            trial = trials[number]
            stands_out = trial.trial_id in bright
            (line,) = axes.plot(
                [places[number] for places in spots], rows,
                color=kind_mark(trial.kind).colour if stands_out else MUTED,
                alpha=0.9 if stands_out else 0.22, linewidth=1.5 if stands_out else 0.8,
                zorder=3 if stands_out else 2,
            )  # fmt: skip
            mark_trial(line, trial.trial_id)
        _rows_of_parameters(axes, list(columns))
        axes.set_title(f"{family}: {count_drawn(trials, usable)}")
        text = (
            f"Each of {count(len(trials), f'{family} trial')} as a line through "
            f"{', '.join(names)}; the best is {best_first[0].row.name}."
        )
        svg = to_svg(axes, f"parallel-{family}", text, tips(data))
    told_bright = f" {len(bright)}" if len(bright) > 1 else ""
    return Drawing(svg, f"In colour: the best{told_bright}. Point at a line for its name.")


def _rows_of_parameters(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.3, -0.35)
    axes.set_xlim(-0.06, 1.06)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_slices(data: ReportData) -> list[Drawing]:
    """The score against each parameter that varied, one small figure each."""
    drawings, shown = [], best_of(data.usable)
    for name in varied_parameters(shown):
        trials = [trial for trial in shown if name in trial.row.params]
        if len({str(trial.row.params[name]) for trial in trials}) > 1:
            drawings.append(_draw_slice(data, name, trials))
    return drawings


def _draw_slice(data: ReportData, name: str, trials: list[TrialView]) -> Drawing:
    places, labels = place_values([trial.row.params[name] for trial in trials], name)
    texts_of = labels
    if len(labels) == len(set(places)):  # one place a value: spread what would cover each other
        rng = np.random.default_rng(0)
        width = 0.22 / max(2, len(labels))
        places = [place + float(rng.uniform(-width, width)) for place in places]
    scores = [data.score(trial) for trial in trials]
    with styled():
        axes = new_axes(SLICE_INCHES[1], SLICE_INCHES[0])
        scatter_by_kind(axes, trials, places, scores, size=13)
        flat = thin_labels(
            {place: short(text, 11) for place, text in labels.items()}, SLICE_CHARACTERS
        )
        crowded = len(flat) < min(len(labels), MAX_NAMED)
        # Slanted ones need the height of a line each, whatever their length.
        labels = thin_labels(dict.fromkeys(labels, "  "), SLICE_CHARACTERS) if crowded else flat
        labels = {place: texts_of[place] for place in labels}
        texts = list(labels.values())
        axes.set_xticks(
            list(labels), [short(text, 11) for text in texts], rotation=30 if crowded else 0,
            ha="right" if crowded else "center", rotation_mode="anchor" if crowded else "default",
        )  # fmt: skip
        axes.set_xlim(-0.18, 1.18)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        stretch_accuracy(axes, "y", scores, tick_gap=0.2)
        axes.grid(axis="x", visible=False)
        axes.set_title(name)
        number = count(len(trials), "trial")
        sentence = f"{metric_words(data).capitalize()} against {name}, {number}."
        svg = to_svg(axes, f"slice-{name}", sentence, tips(data))
    return Drawing(svg, "")
