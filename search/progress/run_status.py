"""The progress of a run, read from its folder alone."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pawtune.search.config.search_config import load_recorded_config
from pawtune.search.progress.stages import read_stage, stage_file
from pawtune.search.progress.state_file import read_noted, state_file
from pawtune.search.progress.watch import driver_since
from pawtune.search.results.leaderboard import outcome, rank_trials, read_outcomes
from pawtune.search.storage.records import EARLY_STOP, TrialStatus
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.storage.run_lock import is_running


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
        waiting: Reasons to wait, by trial; empty unless the search runs.
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
        name: Name under which the run was asked for.
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
    stage = read_stage(run) if running else None
    found = _noted(run) if running else _kept(run) if summary is not None else None
    trials = found or _read(run)
    return RunStatus(
        name=run.name,
        folder=run.place,
        running=running,
        ended=summary is not None,
        reason=summary.reason if summary is not None else None,
        counts=dict(trials.counts),
        best=trials.best,
        waiting=trials.waiting if running else {},
        stage=stage.text() if stage is not None else None,
    )


@dataclass(frozen=True)
class _Trials:
    """What a status says of a run's trials; waiting: by trial, as of RunStatus."""

    counts: Counter[str]
    best: BestSoFar | None
    waiting: dict[str, str] = field(default_factory=dict)


def _read(run: RunFolder) -> _Trials:
    """From the files of every trial."""
    rows = rank_trials(run, load_recorded_config(run.config_file).objective)
    best = next((row for row in rows if row.best_val_accuracy is not None), None)
    waiting = [row.trial_id for row in rows if row.status == "pending"]
    statuses = {trial_id: run.trial(trial_id).read_status() for trial_id in waiting}
    return _Trials(
        Counter(row.state for row in rows),
        BestSoFar(best.trial_id, best.name, best.best_val_accuracy or 0.0) if best else None,
        _waiting(statuses),
    )


def _noted(run: RunFolder) -> _Trials | None:
    """From the driver's notes and the trials that have not ended; None where they do not suffice.

    Notes are some seconds old: whoever ran then, and whoever was proposed since, is looked at.
    """
    noted = read_noted(run, driver_since(run))
    if noted is None:
        return None
    state, _ = noted
    ids = [trial.trial_id for trial in run.trials()]
    unended = len(ids) - state.num_ended - len(state.running)
    newest = [name for name in reversed(ids) if name not in state.running][: max(unended, 0)]
    if unended < 0 or not state.running.keys() <= {*ids}:
        return None
    statuses = {name: run.trial(name).read_status() for name in sorted([*state.running, *newest])}
    if any(statuses[name].is_over for name in newest):
        return None
    early = outcome("stopped", EARLY_STOP)
    counts = Counter({early if name == "stopped" else name: n for name, n in state.ended.items()})
    counts.update(outcome(status.status, status.reason) for status in statuses.values())
    best = state.best
    if best is not None and state.leader not in ids:
        return None
    lead = BestSoFar(state.leader or "", best.name, best.accuracy) if best else None
    return _Trials(counts, lead, _waiting(statuses))


def _kept(run: RunFolder) -> _Trials | None:
    """From the leaderboard of a run that ended; None where a driver was killed since."""
    if state_file(run).exists() or stage_file(run).exists():
        return None
    outcomes = read_outcomes(run)
    if outcomes is None:
        return None
    lead = next((key for key, (_, accuracy) in outcomes.items() if accuracy is not None), None)
    best = None
    if lead is not None:
        name = run.trial(lead).read_proposal().spec.name
        best = BestSoFar(lead, name, outcomes[lead][1] or 0.0)
    return _Trials(Counter(state for state, _ in outcomes.values()), best)


def _waiting(statuses: Mapping[str, TrialStatus]) -> dict[str, str]:
    return {
        trial_id: status.reason
        for trial_id, status in sorted(statuses.items())
        if status.status == "pending" and status.reason
    }
