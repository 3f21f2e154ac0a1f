"""A run as a notebook shows it: headline, the first trials, and their learning curves.

All that a run folder says is escaped: it may be untrusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from pawtune.search.objective import Metric
from pawtune.search.progress.run_status import of_run
from pawtune.search.results.leaderboard import Row
from pawtune.search.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from pawtune.search.results.selection_bias import ValidationEstimate

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS = 10
# Okabe-Ito without black and yellow, which a dark or a light page would swallow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
WIDTH, HEIGHT = 560, 220  # of the curves, in px
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 30  # margins: numbers stand there


@dataclass(frozen=True)
class Curve:
    """A trial's line. points: "x,y x,y", as SVG takes them; end: the last of them."""

    name: str
    colour: str
    points: str
    end: tuple[float, float]


@dataclass(frozen=True)
class Curves:
    """Learning curves as they are drawn. ticks: (place in px, label) of the axis of values."""

    lines: Sequence[Curve]
    ticks: Sequence[tuple[float, str]]
    epochs: int


def run_html(
    run: RunFolder,
    rows: Sequence[Row],
    metric: Metric,
    estimate: "ValidationEstimate | None",
) -> str:
    """The run as a fragment of HTML that needs nothing else.

    Args:
        run: The run.
        rows: Its leaderboard, best first.
        metric: Metric that the search optimised.
        estimate: The winner's accuracy, corrected; None where there is none.
    """
    usable = [row for row in rows if row.best_epoch is not None]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("run.html.j2").render(
        name=run.name,
        place=run.place,
        state=of_run(run).text(),
        best=usable[0] if usable else None,
        estimate=estimate,
        rows=rows[:MAX_ROWS],
        num_rows=len(rows),
        metric=metric,
        curves=learning_curves(run, usable, metric),
        colours=COLOURS,
        size=(WIDTH, HEIGHT),
        plot=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
    )


def learning_curves(run: RunFolder, usable: Sequence[Row], metric: Metric) -> Curves | None:
    """The first trials' metric by epoch, placed in a picture; None where none has two epochs."""
    drawn = [(row, run.trial(row.trial_id).read_metrics()) for row in usable[: len(COLOURS)]]
    drawn = [(row, epochs) for row, epochs in drawn if epochs]
    values = [epoch[metric] for _, epochs in drawn for epoch in epochs]
    longest = max((len(epochs) for _, epochs in drawn), default=0)
    if longest < 2:
        return None
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def place(epoch: float, value: float) -> tuple[float, float]:
        x = LEFT + (epoch - 1) / (longest - 1) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - value) / span * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    lines = []
    for colour, (row, epochs) in zip(COLOURS, drawn, strict=False):
        points = [place(number, epoch[metric]) for number, epoch in enumerate(epochs, start=1)]
        text = " ".join(f"{x:g},{y:g}" for x, y in points)
        lines.append(Curve(row.name, colour, text, points[-1]))
    ticks = [(place(1, value)[1], f"{value:.3f}") for value in (low, (low + high) / 2, high)]
    return Curves(lines, ticks, longest)
