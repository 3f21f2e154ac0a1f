"""Progress bars of a search: how far a stage is, for how long it has run, and the time left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

TRIALS = "trials"
BYTE_STAGES = frozenset({"download"})
LEAST_BAR = 8  # columns: a narrow terminal cuts the stage's name first


@dataclass(frozen=True)
class Bar:
    """One bar at one moment. Times are Unix seconds.

    Attributes:
        done: Items that are done, or bytes for downloads; parts of an item count.
        total: None where it is not known.
        began: Time at which this session of the stage began.
        at: Time at which `done` was reached: the time left runs down from there.
        behind: Items done before `began`, which say nothing about the pace; by default 0.
        whole: Items that are done as a whole, given where `done` counts parts of others.
        waits: Reason to wait while the cluster has no room; empty otherwise.
    """

    name: str
    done: float
    total: float | None
    began: float
    at: float
    behind: float = 0.0
    whole: int | None = None
    waits: str = ""

    def seconds_left(self, now: float) -> float | None:
        """By the mean pace since `began`; None before anything is done."""
        made = self.done - self.behind
        if self.total is None or made <= 0:
            return None
        whole = (self.total - self.done) * (self.at - self.began) / made
        return max(0.0, whole - (now - self.at))

    def amount(self) -> str:
        """Done and total: `3/24`, `12.1 of 67.3 MB`."""
        if self.name in BYTE_STAGES:
            of = "" if self.total is None else f" of {self.total / 1e6:.1f}"
            return f"{self.done / 1e6:.1f}{of} MB"
        done = int(self.done) if self.whole is None else self.whole
        return f"{done:,}" + ("" if self.total is None else f"/{int(self.total):,}")

    def text(self) -> str:
        """All but times: `decode at 160 px 300/2,000`, and what it waits for."""
        return f"{self.name} {self.amount()}" + (f": {self.waits}" if self.waits else "")

    def times(self, now: float) -> str:
        """How long so far, and how long still: `0:12:30, 0:03:10 left`."""
        if self.total is not None and self.done >= self.total:
            return clock(self.at - self.began)
        left = self.seconds_left(now)
        return clock(now - self.began) + ("" if left is None else f", {clock(left)} left")


def clock(seconds: float) -> str:
    """Seconds as a clock shows them.

    >>> clock(59.6), clock(3671)
    ('0:01:00', '1:01:11')
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@dataclass(frozen=True)
class Bars:
    """Bars for a terminal of any width; drawn again, they show the time that has passed."""

    bars: Sequence[Bar]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._table(time.time())
        for bar in self.bars:
            if bar.waits:
                yield Text(f"{bar.name}: {bar.waits}", "yellow")

    def _table(self, now: float) -> RenderableType:
        table = Table.grid(
            Column(no_wrap=True, overflow="ellipsis", ratio=None),
            Column(ratio=1, min_width=LEAST_BAR),
            Column(justify="right", no_wrap=True),
            Column(no_wrap=True),
            padding=(0, 1, 0, 0),
            expand=True,
        )
        for bar in self.bars:
            drawn = ProgressBar(total=bar.total, completed=bar.done, pulse=bar.total is None)
            table.add_row(Text(bar.name), drawn, bar.amount(), Text(bar.times(now), "cyan"))
        return table
