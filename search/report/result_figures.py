"""Figures of the results: accuracy against cost, confusion matrix, reliability."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray
from PIL import Image

from pawtune.models.words import count
from pawtune.search.report.data import ReportData
from pawtune.search.report.figures import (
    INK,
    MUTED,
    RIGHT,
    SURFACE,
    WRONG,
    Drawing,
    mark_trials,
    new_axes,
    styled,
    to_svg,
)
from pawtune.search.report.trial_marks import (
    compact,
    kind_legend,
    scatter_by_kind,
    short,
    stretch_accuracy,
    tips,
)
from pawtune.search.results.calibration import Calibration

MAX_PARETO_NAMES = 6
MAX_NUMBERED_CLASSES = 20
COST_WORDS = {"num_weights": "weights of the model", "training_s": "seconds of training"}
MEASURED_WORDS = {"latency_ms": "milliseconds for one image", "size_mb": "MB of weights"}


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Positions that nothing cheaper beats, cheapest first. Higher scores are better.

    >>> pareto_front([1, 2, 3, 4], [0.5, 0.7, 0.6, 0.8])
    [0, 1, 3]
    """
    front: list[int] = []
    for place in sorted(range(len(costs)), key=lambda n: (costs[n], -scores[n])):
        if not front or scores[place] > scores[front[-1]]:
            front.append(place)
    return front


def draw_trade_off(data: ReportData, cost: str) -> Drawing | None:
    """Accuracy against what a trial costs: a key of `COST_WORDS` or of `MEASURED_WORDS`."""
    words = {**COST_WORDS, **MEASURED_WORDS}[cost]
    found = [
        (trial, float(value))
        for trial in data.usable
        if (value := trial.training_s if cost == "training_s" else getattr(trial.row, cost))
    ]
    if len(found) < 2:
        return None
    trials, costs = [trial for trial, _ in found], [value for _, value in found]
    scores = [trial.row.best_val_accuracy or 0.0 for trial in trials]
    front = pareto_front(costs, scores)
    with styled():
        axes = new_axes(2.8)
        axes.set_xscale("log")
        narrow = max(costs) < 100 * min(costs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
        axes.xaxis.set_major_formatter(compact)
        axes.xaxis.set_minor_formatter("")
        axes.step(
            [costs[n] for n in front], [scores[n] for n in front], where="post", color=INK,
            linewidth=1.1, alpha=0.7,
        )  # fmt: skip
        scatter_by_kind(axes, trials, costs, scores)
        ring = axes.scatter(
            [costs[n] for n in front], [scores[n] for n in front], 70, "none", edgecolors=INK,
            linewidths=0.9, zorder=4,
        )  # fmt: skip
        mark_trials(ring, [trials[n].trial_id for n in front])
        stretched = stretch_accuracy(axes, "y", scores)
        axes.grid(which="minor", visible=False)
        axes.set_xlabel(words)
        axes.set_ylabel("validation accuracy")
        kind_legend(axes, trials, line="Pareto front")
        listing = "; ".join(
            f"{trials[n].row.name} {scores[n]:.4f} at {costs[n]:,.0f}" for n in front
        )
        sentence = f"Validation accuracy against {words}. Nothing cheaper beats: {listing}."
        svg = to_svg(axes, f"cost-{cost}", sentence, tips(data))
    names = [short(trials[n].row.name, 40) for n in front[-MAX_PARETO_NAMES:]]
    listed = ", ".join(names) + (" and cheaper ones" if len(front) > len(names) else "")
    return Drawing(svg, f"Ringed: nothing cheaper is better ({listed}).{stretched}")


def draw_confusion(counts: NDArray[np.int64], names: Sequence[str], split: str) -> Drawing:
    """A split's confusion matrix: rows are the true classes, columns the predicted ones."""
    wrong = int(counts.sum() - np.trace(counts))
    with styled():
        svg = to_svg(
            _confusion_axes(counts, names),
            f"confusion-{split}",
            f"Confusion matrix of {count(int(counts.sum()), f'{split} image')}, {wrong} of them "
            "wrong.",
        )
    return Drawing(svg, "Images by true and predicted class; colour is the share of the row.")


def draw_confusion_picture(counts: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """The same as pixels: (H, W, 3) uint8."""
    with styled():
        figure = _confusion_axes(counts, names).get_figure(root=True)
        assert figure is not None
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=130, facecolor="white")
    return np.asarray(Image.open(target).convert("RGB"))


def draw_reliability(calibration: Calibration) -> Drawing:
    """The share that is right against stated confidence, before and after calibration."""
    series = (
        ("before", calibration.bins_before, WRONG, "s"),
        ("after", calibration.bins_after, RIGHT, "o"),
    )
    errors = f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after"
    with styled():
        axes = new_axes(2.8)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        for name, bins, colour, marker in series:
            most = max(each.images for each in bins)
            confidences = [each.confidence for each in bins]
            accuracies = [each.accuracy for each in bins]
            sizes = [12 + 60 * each.images / most for each in bins]
            axes.plot(confidences, accuracies, color=colour, alpha=0.6)
            axes.scatter(
                confidences, accuracies, sizes, colour, marker=marker, label=name, zorder=3
            )
        axes.set_xlabel("stated probability")
        axes.set_ylabel("share right")
        axes.legend(loc="upper left")
        label = f"Reliability diagram; expected calibration error {errors}."
        svg = to_svg(axes, "reliability", label)
    return Drawing(
        svg,
        f"On the dotted line the share right is as stated; larger marks are more images. Expected "
        f"calibration error {errors}: each of {calibration.images:,} validation images at the "
        f"temperature of the other folds. Temperature of the delivered model: "
        f"{calibration.temperature:.3f}.",
    )


def _confusion_axes(counts: NDArray[np.int64], names: Sequence[str]) -> Axes:
    classes = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = new_axes(min(4.6, 1.0 + 0.45 * classes))
    for row, column in zip(*np.nonzero((counts > 0) | np.eye(classes, dtype=bool)), strict=True):
        colour = RIGHT if row == column else WRONG
        axes.barh(
            row, 1, left=column - 0.5, height=1, color=colour, edgecolor=SURFACE, linewidth=0.8,
            alpha=float(shares[row, column]) * 0.85,
        )  # fmt: skip
    if classes <= MAX_NUMBERED_CLASSES:
        for (row, column), number in np.ndenumerate(counts):
            if number or classes <= 4:
                size = 10 if classes <= 10 else 6.5
                axes.text(column, row, str(number), ha="center", va="center", fontsize=size)
    _name_classes(axes, names)
    return axes


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    classes = len(names)
    step = max(1, classes // 25)
    labels = [short(name, 12) for name in names][::step]
    slanted = classes > 4
    axes.set_yticks(range(0, classes, step), labels)
    axes.set_xticks(
        range(0, classes, step), labels, rotation=45 if slanted else 0,
        ha="right" if slanted else "center", rotation_mode="anchor" if slanted else "default",
    )  # fmt: skip
    axes.set_xlim(-0.5, classes - 0.5)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
