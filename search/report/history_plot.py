"""Training history of chosen trials as one picture: the tutorial's own, for every trial.

A column a trial; above accuracy, below loss, by epoch; training dashed, validation solid.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pawtune.data_pipeline.safe_files import expanded
from pawtune.search.errors import UserError
from pawtune.search.report.data import ReportData, TrialView, read_report_data
from pawtune.search.report.figures import INK, STYLE, kind_mark
from pawtune.search.report.trial_marks import compact, short
from pawtune.search.results.delivery.out_files import writing
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import write_bytes

PANEL_INCHES = 2.3
ROW_INCHES = 2.1
DPI = 130
SUFFIXES = (".png", ".svg", ".pdf")
WIDE_LOSSES = 20.0  # a larger ratio of losses needs a logarithmic axis


def plot_histories(run: Run, out: Path, trials: Sequence[str] = ()) -> list[str]:
    """Draws the histories of some trials beside the baselines.

    Args:
        run: The run.
        out: A .png, .svg or .pdf file.
        trials: Ids or names; by default the best trial.

    Returns:
        The names of the trials drawn, in order.

    Raises:
        UserError: No such trial, none has finished an epoch, or `out` cannot be written.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(
            f"--out must end in {', '.join(SUFFIXES)}, received {str(out)!r}; for example "
            "curves.png"
        )
    data = read_report_data(run)
    chosen = _choose(data, trials)
    figure = draw_histories(chosen)
    with writing(out):
        write_bytes(expanded(out), _render(figure, out.suffix[1:]))
    return [trial.row.name for trial in chosen]


def _choose(data: ReportData, asked: Sequence[str]) -> list[TrialView]:
    with_epochs = [trial for trial in data.trials if trial.epochs]
    if not with_epochs:
        raise UserError(
            "a plot needs a trial with at least one finished epoch, and this run has none; see "
            "`pawtune leaderboard` for what became of its trials"
        )
    found = []
    for word in asked:
        matches = [trial for trial in with_epochs if word in (trial.trial_id, trial.row.name)]
        if not matches:
            known = ", ".join(trial.trial_id for trial in with_epochs)
            raise UserError(
                f"--trials must be ids or names of trials with a finished epoch, received "
                f"{word!r}; this run offers: {known}"
            )
        found.append(matches[0])
    if not found:
        found = [data.best or with_epochs[0]]
    baselines = [trial for trial in with_epochs if trial.baseline]
    ids = dict.fromkeys(trial.trial_id for trial in [*found, *baselines])
    by_id = {trial.trial_id: trial for trial in with_epochs}
    return [by_id[trial_id] for trial_id in ids]


def draw_histories(trials: Sequence[TrialView]) -> Figure:
    """The figure: two rows, a column a trial, axes shared along a row."""
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(PANEL_INCHES * len(trials) + 0.6, 2 * ROW_INCHES + 0.5),
            layout="constrained",
            dpi=DPI,
        )
        axes = figure.subplots(2, len(trials), sharex=True, sharey="row", squeeze=False)
        for column, trial in enumerate(trials):
            _draw(axes[0, column], trial, "accuracy")
            _draw(axes[1, column], trial, "loss")
            axes[0, column].set_title(short(trial.row.name, 26))
            axes[1, column].set_xlabel("epoch")
            axes[1, column].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes[0, 0].set_ylabel("accuracy")
        axes[1, 0].set_ylabel("loss")
        losses = [value for t in trials for key in ("loss", "val_loss") for value in t.values(key)]
        if min(losses) > 0 and max(losses) > WIDE_LOSSES * min(losses):
            axes[1, 0].set_yscale("log")
            axes[1, 0].yaxis.set_major_formatter(compact)
            axes[1, 0].yaxis.set_minor_formatter("")
        axes[0, 0].legend(loc="lower right")
    return figure


def _draw(axes: Axes, trial: TrialView, metric: str) -> None:
    epochs = [epoch["epoch"] for epoch in trial.epochs]
    marker = "." if len(epochs) == 1 else ""
    axes.plot(
        epochs, trial.values(metric), marker=marker, color=INK, linestyle=(0, (3, 2)),
        linewidth=1.2, label="training",
    )  # fmt: skip
    axes.plot(
        epochs, trial.values(f"val_{metric}"), marker=marker, color=kind_mark(trial.kind).colour,
        linewidth=1.8, label="validation",
    )  # fmt: skip
    if trial.usable:
        axes.axvline(
            trial.row.best_epoch or 0, color=kind_mark(trial.kind).colour, linewidth=0.8, alpha=0.5,
            label="best epoch",
        )  # fmt: skip


def _render(figure: Figure, kind: str) -> bytes:
    target = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.fonttype": "path"}):
        figure.savefig(target, format=kind, facecolor="white")
    return target.getvalue()
