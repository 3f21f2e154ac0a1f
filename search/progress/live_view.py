"""The state of a running search, and how a terminal shows it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pawtune.models.words import count
from pawtune.search.objective import Metric, Objective
from pawtune.search.storage.records import EARLY_STOP, Status
from pawtune.search.trial_report import TrialReport

MAX_ROWS = 12  # running trials shown at once: with bar, counts and the best this fits 24 lines
NAME_CHARACTERS = 40


@dataclass(frozen=True)
class TrialEvent:
    """One thing that happened to a trial: its start, an epoch, or its end.

    Attributes:
        trial_id: Id of the trial, such as `0007`.
        name: Name of the trial.
        family: Name of its architecture family.
        epochs: Number of epochs of a trial that is not stopped.
        status: `running`, `completed`, `stopped` or `failed`.
        report: Latest report of its worker; empty before the first epoch.
        reason: Why it ended, where it did not end by itself: `asha` for early stopping.
        params: Its parameters by name.
    """

    trial_id: str
    name: str
    family: str
    epochs: int
    status: Status
    report: TrialReport
    reason: str | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> dict[str, Any]:
        """The report by name: `epoch`, `val_accuracy`, `val_loss`, `objective` (the best so far of
        what the search optimises), `best_epoch` and so on. Without these before the first epoch.
        """
        return self.report.to_result()


@dataclass
class RunningTrial:
    """A trial that a worker is training."""

    name: str
    family: str
    epoch: int
    epochs: int
    best: float | None


@dataclass(frozen=True)
class BestTrial:
    """A trial's best epoch so far.

    Attributes:
        value: Value of the metric that the search optimises.
        accuracy: On validation.
        loss: On validation; of equal values the smaller is the better.
    """

    value: float
    accuracy: float
    loss: float
    name: str
    epoch: int
    params: Mapping[str, Any]


@dataclass
class SearchState:
    """A search at one moment.

    Attributes:
        total: Trials to run, baselines included.
        metric: Metric that the search optimises.
        train_images: Images of the training split, which a backbone would see in every epoch.
        val_images: Images of the validation split, which a backbone would see once a trial.
        saved_epochs: Epochs not run because the scheduler stopped trials.
        saved_passes: Images that trials on the feature bank did not push through a backbone.
        waits: How many trials wait for room on the cluster, and for what; empty where none does.
        ended: Trials by status, or `interrupted`.
        running: Trials that workers train, by id.
        bests: Best epochs of trials that have not failed, by id.
        leader: Id of the best trial, see `best`.
    """

    total: int = 0
    metric: Annotated[Metric, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,39}$")] = "val_accuracy"
    train_images: int = 0
    val_images: int = 0
    saved_epochs: int = 0
    saved_passes: int = 0
    waits: str = ""
    ended: Counter[str] = field(default_factory=Counter)
    running: dict[str, RunningTrial] = field(default_factory=dict)
    bests: dict[str, BestTrial] = field(default_factory=dict)
    leader: str | None = None

    @property
    def num_ended(self) -> int:
        return sum(self.ended.values())

    @property
    def progress(self) -> float:
        """Trials that ended, and the parts of those that run."""
        return self.num_ended + sum(t.epoch / max(1, t.epochs) for t in self.running.values())

    @property
    def best(self) -> BestTrial | None:
        """The best of the trials that have not failed; the earliest of equals."""
        return None if self.leader is None else self.bests.get(self.leader)

    def _rank(self, trial_id: str) -> None:
        """Finds the best again, among all trials, only where this one may have changed it."""
        known, best = self.bests.get(trial_id), self.best
        if trial_id != self.leader and (
            known is None or (best is not None and self._key(known) < self._key(best))
        ):
            return
        self.leader = max(self.bests, key=lambda known: self._key(self.bests[known]), default=None)

    def _key(self, best: BestTrial) -> tuple[float, float]:
        return Objective(self.metric).key({"val_loss": best.loss, self.metric: best.value})

    def take(self, event: TrialEvent, on_bank: bool = False) -> bool:
        """Updates the state with an event.

        Args:
            event: Event of a trial: its start, an epoch or its end.
            on_bank: Whether the trial trained on the feature bank.

        Returns:
            Whether another trial is the best now, or the same one a better one.
        """
        epoch, best = event.report.epoch, event.report.best
        if event.status == "running":
            self.running[event.trial_id] = RunningTrial(
                event.name, event.family, epoch, event.epochs, best.objective if best else None
            )
        elif event.status != "pending":  # what waits to be continued has not ended
            self.running.pop(event.trial_id, None)
            early = event.status == "stopped" and event.reason == EARLY_STOP
            self.ended[
                "interrupted" if event.status == "stopped" and not early else event.status
            ] += 1
            if early:
                self.saved_epochs += event.epochs - epoch
            if on_bank and epoch:
                self.saved_passes += epoch * self.train_images + self.val_images
        leading = self.best
        if event.status == "failed":  # what it had reached does not count
            self.bests.pop(event.trial_id, None)
        elif best is not None:
            self.bests[event.trial_id] = BestTrial(
                value=best.objective,
                accuracy=best.val_accuracy,
                loss=best.val_loss,
                name=event.name,
                epoch=best.epoch,
                params=event.params,
            )
        self._rank(event.trial_id)
        return self.best is not None and self.best != leading

    def counts(self) -> str:
        """Ended trials by outcome: `8 done, 3 stopped early, 1 failed`."""
        words = {"completed": "done", "stopped": "stopped early", "interrupted": "interrupted"}
        words["failed"] = "failed"
        parts = [f"{self.ended[s]} {word}" for s, word in words.items() if self.ended[s]]
        return ", ".join(parts) or "none done yet"

    def saved(self) -> str:
        """Work that was saved, in words; empty where there was none."""
        parts = []
        if self.saved_epochs:
            parts.append(f"{count(self.saved_epochs, 'epoch')} (early stopping)")
        if self.saved_passes:
            parts.append(f"{self.saved_passes:,} backbone passes (feature bank)")
        return ", ".join(parts)


def show_state(state: SearchState) -> RenderableType:
    """The state for a terminal of any width: long names are cut, parameters wrap."""
    parts: list[RenderableType] = []
    if state.running:
        parts.append(_running_table(state))
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(state.counts(), "bold")
    waiting = max(0, state.total - state.num_ended - len(state.running))
    line.append(f", {len(state.running)} running, {waiting} to come")
    parts.append(line)
    if state.waits:
        parts.append(Text(state.waits, "yellow"))
    if state.best is not None:
        parts += _best_lines(state.best, state.metric)
    if state.saved():
        parts.append(Text(f"saved {state.saved()}", "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _running_table(state: SearchState) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("running", no_wrap=True, overflow="ellipsis", max_width=NAME_CHARACTERS)
    table.add_column("family", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("best so far", justify="right", no_wrap=True)
    trials = list(state.running.values())
    for trial in trials[:MAX_ROWS]:
        best = "–" if trial.best is None else f"{trial.best:.4f}"
        table.add_row(Text(trial.name), trial.family, f"{trial.epoch}/{trial.epochs}", best)
    if len(trials) > MAX_ROWS:
        table.add_row(f"and {len(trials) - MAX_ROWS} more", "", "", "")
    return table


def _best_lines(best: BestTrial, metric: Metric) -> list[RenderableType]:
    """Name and value on a line that is cut, then all parameters, wrapped."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"best {metric} ")
    line.append(f"{best.value:.4f}", "bold green")
    if metric != "val_accuracy":
        line.append(f" (val_accuracy {best.accuracy:.4f})")
    name = (
        best.name if len(best.name) <= NAME_CHARACTERS else f"{best.name[: NAME_CHARACTERS - 1]}…"
    )
    line.append(f" {name}", "bold")
    line.append(f", epoch {best.epoch}")
    text = Text("  ".join(describe_params(best.params)), "dim", overflow="ellipsis")
    return [line, Padding(text, (0, 0, 0, 2))] if text else [line]


def describe_params(params: Mapping[str, Any]) -> list[str]:
    """Parameters, each a word that does not wrap: `learning_rate=0.001`."""
    return [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
        if name != "family"
    ]
