"""Watching a search from outside: read from its folder, on whatever machine sees it."""

import csv
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from models.spec import BASELINES
from search.config import SearchConfig
from search.history import read_history
from search.live_view import SearchState, TrialEvent, show_state
from search.lock import STALE_S
from search.objective import Objective
from search.run import Run
from search.run_folder import RunFolder, TrialFolder, read_json

WATCH_S = 2.0


def watch(run: Run, console: Console) -> None:
    """Shows a search until it is over, at once if it is; Ctrl-C leaves it running.

    Raises:
        UserError: A file of the run is damaged.
    """
    with Live(show_run(run), console=console, auto_refresh=False) as live:
        try:
            while is_running(run.folder):
                time.sleep(WATCH_S)
                live.update(show_run(run), refresh=True)
            live.update(show_run(run), refresh=True)
        except KeyboardInterrupt:
            pass


def show_run(run: Run) -> RenderableType:
    """A search at this moment, for a terminal."""
    state = read_state(run)
    ended = run.folder.summary_file.exists()
    if is_running(run.folder):
        words = "running"
    elif ended and run.summary().get("reason"):
        words = f"ended early, {run.summary()['reason']}"
    else:
        words = "ended" if ended else f"its driver is gone; go on with: pawtune resume {run.name}"
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(run.name, "bold")
    head.append(f": {state.num_ended} of {state.total} trials, {words}")
    return Group(head, show_state(state))


def is_running(folder: RunFolder) -> bool:
    """Whether a driver holds the run: its lock has a heartbeat."""
    lock = folder.root / "driver.lock"
    return lock.exists() and time.time() - lock.stat().st_mtime < STALE_S


def read_state(run: Run) -> SearchState:
    """Trials, counts and the best so far.

    Raises:
        UserError: A file of the run is damaged.
    """
    config, trials = run.config(), list(run.folder.trials())
    running = is_running(run.folder)
    state = SearchState(train_images=_train_images(run.folder))
    for trial in trials:
        if running or trial.read_status()["status"] != "running":
            _take(state, trial, Objective(config.metric))
    state.total = max(len(trials), _planned(config, run.folder))
    return state


def read_past(folder: RunFolder) -> SearchState:
    """What earlier sessions of a search have behind them: the trials that are over."""
    state = SearchState(train_images=_train_images(folder))
    if any(folder.trials()):
        objective = Objective(Run(folder).config().metric)
        over = {trial.trial_id for trial in read_history(folder, objective) if trial.over}
        for trial in folder.trials():
            if trial.trial_id in over:
                _take(state, trial, objective)
    state.total = state.num_ended
    return state


def _take(state: SearchState, trial: TrialFolder, objective: Objective) -> None:
    event = _last_event(trial, objective)
    if event is not None:
        facts = read_json(trial.facts_file) if trial.facts_file.exists() else {}
        state.take(event, on_bank=facts.get("training") == "bank")


def _last_event(trial: TrialFolder, objective: Objective) -> TrialEvent | None:
    """What last happened to a trial; None where it waits for a worker."""
    status, epochs = trial.read_status(), trial.read_metrics()
    if status["status"] == "pending":
        return None
    spec = read_json(trial.spec_file)
    result: dict[str, Any] = {}
    if epochs:
        best = objective.best(epochs)
        result = {
            "epoch": epochs[-1]["epoch"],
            "best_epoch": best["epoch"],
            "best_val_accuracy": best["val_accuracy"],
        }
    return TrialEvent(
        trial_id=trial.trial_id,
        name=spec["name"],
        family=spec["model"]["family"],
        epochs=spec["train"]["epochs"],
        status=status["status"],
        result=result,
        reason=status.get("reason"),
        params=spec["params"],
    )


def _train_images(folder: RunFolder) -> int:
    """Counted, not loaded: a manifest is checked against its fingerprint, every 2 s here."""
    file = folder.root / "manifest.csv"
    if not file.exists():
        return 0
    with file.open(encoding="utf-8", newline="") as stream:
        return sum(row.get("split") == "train" for row in csv.DictReader(stream))


def _planned(config: SearchConfig, folder: RunFolder) -> int:
    families = config.families or ("conv", "transfer")
    if not folder.backbones_dir.exists():  # no weights: transfer was left out
        families = ("conv",)
    baselines = sum(spec.model.family in families for spec in BASELINES.values())
    proposed = config.trials if config.baselines != "only" else 0
    return proposed + (baselines if config.baselines != "off" else 0)
