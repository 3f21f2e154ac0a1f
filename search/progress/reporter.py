"""What a person sees while a search runs: stages, running trials, the best so far.

Everything goes to stderr: stdout belongs to results. On a terminal there is a live view; in a
pipe there are plain lines, few: each trial of a short search, else every new best, every failure,
and a line at every tenth of the way.
"""

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pawtune.models.words import count
from pawtune.search.progress.bars import BYTE_STAGES, TRIALS, Bar, Bars
from pawtune.search.progress.live_view import NAME_CHARACTERS, SearchState, TrialEvent, show_state
from pawtune.search.progress.notebook import NotebookView, in_notebook
from pawtune.search.progress.stages import Stages
from pawtune.search.progress.state_file import StateNotes
from pawtune.search.results.leaderboard import outcome

if TYPE_CHECKING:
    from pawtune.data_pipeline.splitting.manifest import Manifest
    from pawtune.search.cluster.connection import ResourcePlan
    from pawtune.search.results.leaderboard import Row
    from pawtune.search.storage.run_folder import RunFolder

FEW_TRIALS = 30  # up to here a pipe gets a line for each
REFRESH_HZ = 4


UNEVEN = 1.5  # times its even share: a class that frequent is reported


class Reporter:
    """Shows the progress of a search; as a context manager it removes the live view at the end.

    Results go to stdout after that end: on a terminal the live view holds stdout too.

    Args:
        quiet: Show nothing but warnings.
        console: Console to write to; stderr by default.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        # Rich's own view of a notebook needs ipywidgets: lines go to stderr, the view is ours.
        self.console = console or Console(file=sys.stderr, highlight=False, force_jupyter=False)
        self.state = SearchState()
        self.stages = Stages()
        self._quiet = quiet
        self._run: RunFolder | None = None
        self._trials: Bar | None = None
        self._notes: StateNotes | None = None
        self._live: Live | NotebookView | None = None
        self._reported: set[str] = set()  # stages of which a pipe has had its line
        self._reported_tenth = 0
        self._reported_waiting: set[str] = set()  # that wait, and of which a pipe has had its line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _is_live(self) -> bool:
        on_terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        return (on_terminal or in_notebook()) and not self._quiet

    def say(self, line: str) -> None:
        """Prints a line that --quiet does not silence."""
        self.console.print(line, markup=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Prints a line, unless quiet."""
        if not self._quiet:
            self.say(line)

    def stage(self, name: str, done: int, total: int | None, waits: str = "") -> None:
        """Work before or beside the trials: `done` of `total` (bytes for downloads, else items).

        Args:
            name: Name of the stage.
            done: Items that are done, or bytes.
            total: None where it is not known.
            waits: Reason to wait while the cluster has no room; empty otherwise.
        """
        self.stages.take(name, done, total, waits)
        if not waits:
            self._reported_waiting.discard(name)
        if self._is_live and self._trials is not None:
            self._show_trials()
        elif self._is_live:
            self._show(Bars(self.stages.bars))
        elif waits:
            self._note_waiting(name, waits)
        elif total is not None and done >= total and name not in self._reported:
            self._reported.add(name)
            amount = f"{total / 1e6:.1f} MB" if name in BYTE_STAGES else str(total)
            self.note(f"{name}: {amount} done")

    def data(self, manifest: "Manifest") -> None:
        """Reports the splits once they are made."""
        counts = {split: sum(labels.values()) for split, labels in manifest.counts().items()}
        self.note(
            f"data: {len(manifest.class_names)} classes; "
            + ", ".join(f"{number} {split}" for split, number in counts.items())
            + (f"; left out: {len(manifest.rejects)}" if manifest.rejects else "")
        )
        for note in manifest.notes:
            self.note(note)
        label, share = manifest.majority("validation")
        if share > UNEVEN / len(manifest.class_names):
            self.note(
                f"class {label!r} is {share:.1%} of validation: a constant answer scores that"
            )
        for warning in manifest.warnings:
            self.say(f"warning: {warning}")

    def trials(self, total: int, plan: "ResourcePlan", run: "RunFolder") -> None:
        """Reports that the trials begin."""
        from pawtune.search.progress.watch import read_past

        self.close()
        self.stages.over()
        self._run = run
        self.state = read_past(run)  # empty where the search is new
        self.state.total += total
        now, behind = time.time(), self.state.progress
        self._trials = Bar(TRIALS, behind, self.state.total, began=now, at=now, behind=behind)
        self._notes = StateNotes(run)
        self._notes.take(self.state, self._trials)
        device = f"{plan.gpus:g} GPU" if plan.gpus else f"{plan.cpus:g} CPU"
        trials = count(total, "trial")
        self.note(f"run {run.name}: {trials}, {plan.concurrency} at a time, {device} each")
        by_name = Path("runs").resolve() / run.name == run.root
        place = run.name if by_name else shlex.quote(run.place)
        self.note(f"watch it: pawtune tensorboard {place}")
        if self._is_live:
            self._show_trials()

    def event(self, event: TrialEvent) -> None:
        """Reports an event of a trial."""
        is_best = self.state.take(event, self._trained_on_bank(event))
        self._advance()
        if self._is_live:
            if event.status == "failed":
                self.note(f"{event.name} failed: {event.reason}")
            self._show_trials()
        elif event.status != "running" and self._is_worth_a_line(event, is_best):
            self.note(self._line(event))

    def trials_wait(self, waits: str) -> None:
        """Reports that trials wait for resources; an empty line: they no longer wait."""
        self.state.waits = waits
        self._advance()
        if self._is_live:
            self._show_trials()
        elif waits:
            self._note_waiting(TRIALS, waits)
        else:
            self._reported_waiting.discard(TRIALS)

    def _note_waiting(self, name: str, waits: str) -> None:
        """One line each time that something begins to wait."""
        if name not in self._reported_waiting:
            self._reported_waiting.add(name)
            self.note(waits if name == TRIALS else f"{name}: {waits}")

    def close(self) -> None:
        """Removes the live view."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._notes is not None:
            self._notes.over()
            self._notes = None

    def _trained_on_bank(self, event: TrialEvent) -> bool:
        """Read from the trial's facts, once, when it ends."""
        if self._run is None or event.status == "running":
            return False
        return self._run.new_trial(event.trial_id).read_facts().training == "bank"

    def _is_worth_a_line(self, event: TrialEvent, is_best: bool) -> bool:
        tenth = 10 * self.state.num_ended // max(1, self.state.total)
        reached = tenth > self._reported_tenth
        self._reported_tenth = max(tenth, self._reported_tenth)
        few = self.state.total <= FEW_TRIALS
        return few or is_best or reached or event.status == "failed"

    def _line(self, event: TrialEvent) -> str:
        report, state = event.report, self.state
        if report.best is not None and event.status != "failed":
            epochs = f"epoch {report.best.epoch} of {report.epoch}"
            result = f"{state.metric} {report.best.objective:.4f} ({epochs})"
        else:
            result = event.reason or "no epoch finished"
        best = f"; best so far {state.best.value:.4f} {state.best.name}" if state.best else ""
        place = f"[{state.num_ended}/{state.total}]"
        return f"{place} {event.name} {outcome(event.status, event.reason)}: {result}{best}"

    def _advance(self) -> None:
        """Moves the bar of the trials, and notes in the run how far they are."""
        state = self.state
        if self._trials is None:
            return
        if state.progress != self._trials.done:
            self._trials = replace(self._trials, done=state.progress, at=time.time())
        self._trials = replace(self._trials, whole=state.num_ended)
        if self._notes is not None:
            self._notes.take(state, self._trials)

    def _show_trials(self) -> None:
        if self._trials is None:
            return
        state = self.state
        # Built here, drawn by another thread: that one sees no state while it changes.
        self._show(Group(Bars([*self.stages.unfinished, self._trials]), show_state(state)))

    def _show(self, view: RenderableType) -> None:
        if self._live is None and in_notebook():
            self._live = NotebookView()
        elif self._live is None:
            self._live = Live(console=self.console, refresh_per_second=REFRESH_HZ, transient=True)
            self._live.start()
        self._live.update(view)


def default_reporter() -> Reporter:
    """The default for calls from Python: a notebook shows progress, a script does not."""
    return Reporter(quiet=not in_notebook())


def leaderboard_table(rows: "list[Row]", title: str) -> Table:
    """The leaderboard as a table for a terminal; with names of usual length 80 columns do."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.padding = (0, 0)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("trial", no_wrap=True)
    # The one column that gives way in a narrow terminal.
    table.add_column("name", overflow="ellipsis", max_width=NAME_CHARACTERS)
    table.add_column("status", no_wrap=True)
    measured = {"latency_ms": "ms", "size_mb": "MB"}
    costs = [name for name in measured if any(getattr(row, name) is not None for row in rows)]
    own = next((row.own_metric for row in rows if row.own_metric), None)
    headings = (*([own] if own else []), "val acc", "loss", "train", "epoch", "seconds", "weights")
    for name in (*headings, *(measured[cost] for cost in costs)):
        table.add_column(name, justify="right", no_wrap=True)
    if any(row.on_front for row in rows):
        table.caption = "* on the Pareto front: no trial is better at no higher cost"
        table.caption_justify = "left"
    for row in rows:
        table.add_row(
            f"{row.rank or '–'}{'*' if row.on_front else ''}",
            row.trial_id,
            Text(row.name),
            row.state,
            *([_number(row.score, ".4f")] if own else []),
            _number(row.best_val_accuracy, ".4f"),
            _number(row.best_val_loss, ".4f"),
            _number(row.train_accuracy, ".4f"),
            f"{row.best_epoch or '–'}/{row.epochs}",
            _number(row.seconds, ".1f"),
            _number(row.num_weights, ","),
            *(_number(getattr(row, cost), ".2f") for cost in costs),
        )
    return table


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)
