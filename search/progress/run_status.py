"""How far a run is, read from its folder alone."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from pawtune.search.config.search_config import load_config
from pawtune.search.objective import Objective
from pawtune.search.progress.stages import read_stage
from pawtune.search.progress.watch import is_running
from pawtune.search.results.leaderboard import rank_trials
from pawtune.search.storage.run_folder import RunFolder, read_json


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        running: Whether a driver holds it.
        ended: Whether its end is on record; one that was killed has none.
        reason: Why it ended early, or None.
        counts: Trials by status.
        best: Name and validation accuracy of the best trial so far, if one finished an epoch.
        waiting: By trial, what it waits for; empty unless the search runs.
        stage: Before the first trial, what the search is at, and what it waits for.
    """

    running: bool
    ended: bool
    reason: str | None
    counts: dict[str, int]
    best: tuple[str, float] | None
    waiting: dict[str, str] = field(default_factory=dict)
    stage: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """All of it in one line."""
        if self.running:
            state = "running" + (f", {self.stage}" if self.stage else "")
        elif not self.ended:
            state = "no end on record yet"
        else:
            state = f"ended early, {self.reason}" if self.reason else "ended"
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items())
        best = f"; best trial {self.best[0]}, val_accuracy {self.best[1]:.4f}" if self.best else ""
        waits = "".join(f"; trial {name} {reason}" for name, reason in self.waiting.items())
        return f"{state}; trials: {counts or 'none yet'}{best}{waits}"


def of_run(run: RunFolder) -> RunStatus:
    """How far a run is now."""
    running = is_running(run)
    ended = run.summary_file.exists() and not running
    statuses = {trial.trial_id: trial.read_status() for trial in run.trials()}
    counts = Counter(status["status"] for status in statuses.values())
    waiting = {
        trial_id: str(status["reason"])
        for trial_id, status in statuses.items()
        if running and status["status"] == "pending" and status.get("reason")
    }
    stage = read_stage(run) if running else None
    usable = [
        row
        for row in rank_trials(run, Objective(load_config(run.config_file).metric))
        if row.best_val_accuracy is not None
    ]
    return RunStatus(
        running=running,
        ended=ended,
        reason=read_json(run.summary_file)["reason"] if ended else None,
        counts=dict(counts),
        best=(usable[0].name, float(usable[0].best_val_accuracy or 0.0)) if usable else None,
        waiting=waiting,
        stage=stage.text() if stage is not None else None,
    )
