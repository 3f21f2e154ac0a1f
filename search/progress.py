"""What a person sees while a search runs: stages, trials as they end, the best so far.

Everything goes to stderr: stdout belongs to results. On a terminal there are live bars; in a pipe
there are plain lines, few.
"""

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from data_pipeline.manifest import Manifest
    from search.cluster import ResourcePlan
    from search.leaderboard import Row
    from search.records import TrialEvent
    from search.run_folder import RunFolder


class Reporter:
    """Shows a search to a person.

    Args:
        quiet: Show nothing but warnings.
        console: Where to; stderr by default.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bars: Progress | None = None
        self._tasks: dict[str, int] = {}
        self._best: tuple[float, str] | None = None
        self._ended = 0
        self._total = 0
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """A line that matters even to those who want quiet."""
        self.console.print(line, markup=False)

    def note(self, line: str) -> None:
        """A line for those who watch."""
        if not self._quiet:
            self.console.print(line, markup=False)

    def stage(self, name: str, done: int, total: int | None) -> None:
        """Work before the trials: `done` of `total` (bytes for downloads, else items)."""
        if self._quiet:
            return
        if self.console.is_terminal:
            self._bar(name, done, total)
        elif total is not None and done >= total and name not in self._tasks:
            self._tasks[name] = 0
            self.note(f"{name}: {total} done")

    def _bar(self, name: str, done: int, total: int | None) -> None:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)  # type: ignore[arg-type]

    def data(self, manifest: "Manifest") -> None:
        """The splits are made."""
        counts = {split: sum(labels.values()) for split, labels in manifest.counts().items()}
        self.note(
            f"data: {len(manifest.class_names)} classes; "
            + ", ".join(f"{number} {split}" for split, number in counts.items())
            + (f"; {len(manifest.rejects)} files left out" if manifest.rejects else "")
        )
        for warning in manifest.warnings:
            self.say(f"warning: {warning}")

    def trials(self, total: int, plan: "ResourcePlan", run: "RunFolder") -> None:
        """The trials begin."""
        self._total = total
        device = f"{plan.gpus:g} GPU" if plan.gpus else f"{plan.cpus:g} CPU"
        self.note(f"run {run.name}: {total} trials, {plan.concurrency} at a time, {device} each")
        self.note(f"watch it: tensorboard --logdir {run.tensorboard_dir}")
        if self.console.is_terminal and not self._quiet:
            self._bar("trials", 0, total)

    def event(self, event: "TrialEvent") -> None:
        """Something happened to a trial."""
        if event.status == "running":
            return
        self._ended += 1
        result = event.result
        value = result.get("best_val_accuracy")
        if value is not None and event.status != "failed":
            if self._best is None or value > self._best[0]:
                self._best = (value, event.name)
            told = (
                f"val_accuracy {value:.4f} (epoch {int(result['best_epoch'])} of "
                f"{int(result['epoch'])})"
            )
        else:
            told = event.reason or "no epoch finished"
        best = f"; best so far {self._best[0]:.4f} {self._best[1]}" if self._best else ""
        why = " early" if event.reason == "asha" else ""
        self.note(f"[{self._ended}/{self._total}] {event.name} {event.status}{why}: {told}{best}")
        if self._bars is not None:
            self._bar("trials", self._ended, self._total)

    def close(self) -> None:
        """Takes the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def leaderboard_table(rows: "list[Row]", title: str) -> Table:
    """The leaderboard as a table for a terminal."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name, justify in (
        ("#", "right"),
        ("trial", "left"),
        ("name", "left"),
        ("status", "left"),
        ("val acc", "right"),
        ("val loss", "right"),
        ("train acc", "right"),
        ("epoch", "right"),
        ("seconds", "right"),
        ("weights", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(
            str(row.rank),
            row.trial_id,
            row.name,
            row.status,
            _number(row.best_val_accuracy, ".4f"),
            _number(row.best_val_loss, ".4f"),
            _number(row.train_accuracy, ".4f"),
            f"{row.best_epoch or '–'}/{row.epochs}",
            _number(row.seconds, ".1f"),
            _number(row.num_weights, ","),
        )
    return table


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)
