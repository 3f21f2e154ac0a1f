"""How far a run is, read from its folder alone."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pawtune.search.config.search_config import load_config
from pawtune.search.objective import Objective
from pawtune.search.progress.stages import read_stage
from pawtune.search.progress.watch import is_running
from pawtune.search.results.leaderboard import rank_trials
from pawtune.search.storage.run_folder import RunFolder

# Of a run that no driver holds.
LEFT = {"running": "interrupted", "pending": "interrupted"}


@dataclass(frozen=True)
class BestSoFar:
    """The best trial so far."""

    trial_id: str
    name: str
    val_accuracy: float


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        running: Whether a driver holds it.
        ended: Whether its end is on record; one that was killed has none.
        reason: Why it ended early, or None.
        counts: Trials by outcome: completed, stopped early, interrupted, failed, running, pending.
        best: The best trial so far, if one finished an epoch.
        waiting: By trial, what it waits for; empty unless the search runs.
        stage: Before the first trial, what the search is at, and what it waits for.
    """

    name: str
    folder: str
    running: bool
    ended: bool
    reason: str | None
    counts: dict[str, int]
    best: BestSoFar | None
    waiting: dict[str, str] = field(default_factory=dict)
    stage: str | None = None

    @property
    def state(self) -> str:
        """Whether it runs or how it ended, in words."""
        if self.running:
            return "running" + (f", {self.stage}" if self.stage else "")
        if not self.ended:
            place = shlex.quote(self.folder)
            return f"its driver is gone, and no end is on record (continue: pawtune resume {place})"
        return f"ended early, {self.reason}" if self.reason else "ended"

    def text(self) -> str:
        """All of it in one line."""
        counts = ", ".join(f"{number} {outcome}" for outcome, number in self.counts.items())
        best = ""
        if self.best is not None:
            best = f"; best trial {self.best.name}, val_accuracy {self.best.val_accuracy:.4f}"
        waits = "".join(f"; trial {name} {reason}" for name, reason in self.waiting.items())
        return f"{self.state}; trials: {counts or 'none yet'}{best}{waits}"


def as_dict(
    name: str, run: RunStatus | None, job: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """For JSON: one shape for a run and for a job.

    Args:
        name: As it was asked for.
        run: None where a job has not begun its run, or this machine does not see it.
        job: None where no job was asked for.
    """
    return {
        "name": name,
        "state": run.state if run else None,
        "run": asdict(run) if run else None,
        "job": dict(job) if job else None,
    }


def of_run(run: RunFolder) -> RunStatus:
    """How far a run is now."""
    running = is_running(run)
    summary = run.read_summary() if not running else None
    statuses = {trial.trial_id: trial.read_status() for trial in run.trials()}
    waiting = {
        trial_id: status.reason
        for trial_id, status in statuses.items()
        if running and status.status == "pending" and status.reason
    }
    stage = read_stage(run) if running else None
    rows = rank_trials(run, Objective(load_config(run.config_file).metric))
    best = next((row for row in rows if row.best_val_accuracy is not None), None)
    return RunStatus(
        name=run.name,
        folder=run.place,
        running=running,
        ended=summary is not None,
        reason=summary.reason if summary is not None else None,
        # What a driver that died left as running is not.
        counts=dict(
            Counter(row.state if running else LEFT.get(row.state, row.state) for row in rows)
        ),
        best=BestSoFar(best.trial_id, best.name, best.best_val_accuracy or 0.0) if best else None,
        waiting=waiting,
        stage=stage.text() if stage is not None else None,
    )
