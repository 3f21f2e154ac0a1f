"""Follows a search from another process, or another machine that can read its folder."""

import contextlib
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.manifest_io import read_sizes
from pawtune.models.baselines import BASELINES
from pawtune.models.words import count
from pawtune.search.config.needs import backbones_of, needs_of_family
from pawtune.search.config.search_config import SearchConfig, load_recorded_config
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective
from pawtune.search.progress.bars import TRIALS, Bar, Bars
from pawtune.search.progress.live_view import SearchState, TrialEvent, show_state
from pawtune.search.progress.stages import read_stage
from pawtune.search.progress.state_file import read_noted
from pawtune.search.storage.history import read_history
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.storage.run_lock import is_running, read_holder
from pawtune.search.trial_report import BestEpoch, TrialReport

WATCH_S = 2.0
REFRESH_HZ = 1
VIEW_FILES = ("progress.json", "stage.json", "summary.json")


def watch(run: RunFolder, console: Console) -> None:
    """Shows a search until it is over, at once if it is; Ctrl-C leaves it running.

    Raises:
        UserError: A file of the run is damaged.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        _watch_in_lines(run, console)
        return
    # The view shows passing time by itself, and reads the folder again every WATCH_S.
    with Live(show_run(run), console=console, refresh_per_second=REFRESH_HZ) as live:
        try:
            while is_running(run):
                time.sleep(WATCH_S)
                _refresh(run)
                live.update(show_run(run))
            live.update(show_run(run))
        except KeyboardInterrupt:
            pass


def _watch_in_lines(run: RunFolder, console: Console) -> None:
    """For a pipe: a line at once, at every tenth of the way, and at the end."""
    shown_tenth = -1
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            running, state = is_running(run), _state_now(run)[0]
            tenth = 10 * state.num_ended // max(1, state.total)
            if tenth > shown_tenth or not running:
                best = state.best
                lead = f"; best {state.metric} {best.value:.4f} {best.name}" if best else ""
                line = f"[{state.num_ended}/{state.total}] {_state_words(run)}: {state.counts()}"
                console.print(f"{line}, {len(state.running)} running{lead}", markup=False,
                              soft_wrap=True)  # fmt: skip
                shown_tenth = tenth
            if not running:
                return
            time.sleep(WATCH_S)
            _refresh(run)


def _refresh(run: RunFolder) -> None:
    """Fetches what a view takes, where the run lies in an object store."""
    if read_noted(run, driver_since(run)) is not None:
        run.refresh(only=VIEW_FILES)
    if not is_running(run) or read_noted(run, driver_since(run)) is None:
        run.refresh()


def _state_now(run: RunFolder) -> tuple[SearchState, Bar]:
    """As the driver noted it; else read from all trials."""
    noted = read_noted(run, driver_since(run)) if is_running(run) else None
    if noted is not None:
        return noted
    state = read_state(run)
    return state, _trials_bar(run, state)


def show_run(run: RunFolder) -> RenderableType:
    """A search at this moment, for a terminal."""
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(run.name, "bold")
    parts: list[RenderableType] = [head]
    stage = read_stage(run) if is_running(run) else None
    if stage is not None:
        head.append(": before the first trial")
        return Group(head, Bars([stage]))
    state, bar = _state_now(run)
    head.append(f": {state.num_ended} of {count(state.total, 'trial')}, {_state_words(run)}")
    if is_running(run):
        parts.append(Bars([bar]))
    return Group(*parts, show_state(state))


def _state_words(run: RunFolder) -> str:
    if is_running(run):
        return "running"
    summary = run.read_summary()
    if summary is not None:
        return f"ended early, {summary.reason}" if summary.reason else "ended"
    return f"its driver is gone; continue: pawtune resume {run.name}"


def _trials_bar(folder: RunFolder, state: SearchState) -> Bar:
    """How far the trials are; the pace is that of this driver's own session."""
    now, since = time.time(), driver_since(folder)
    trials = [(trial, trial.read_status()) for trial in folder.trials()]
    ours = [(trial, status) for trial, status in trials if (status.started or 0) >= since]
    behind = len([status for _, status in trials if status.is_over])
    behind -= len([status for _, status in ours if status.is_over])
    begun = [status.started for _, status in ours if status.started]
    files = [trial.metrics_file for trial, _ in ours]
    news = [file.stat().st_mtime for file in files if file.exists()]
    began = min(begun, default=now)
    at = max(news, default=began)
    return Bar(TRIALS, state.progress, state.total, began, at, behind, whole=state.num_ended)


def driver_since(folder: RunFolder) -> float:
    """When the driver that holds the run took it, in Unix seconds; 0 where it does not say."""
    try:
        return datetime.fromisoformat(read_holder(folder)["since"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return 0.0


def read_state(run: RunFolder) -> SearchState:
    """Trials, counts and the best so far.

    Raises:
        UserError: A file of the run is damaged.
    """
    folder, running = run, is_running(run)
    state = _empty_state(folder)
    for trial in folder.trials():
        status = trial.read_status()
        if running and status.status == "pending" and status.reason:
            state.waits = f"trial {trial.trial_id} {status.reason}"
        # While a driver runs, what an earlier one left unfinished waits for its turn.
        waits = not status.is_over and running != (status.status == "running")
        _take(state, trial, waits)
    state.total = max(
        len(list(folder.trials())), _planned(load_recorded_config(run.config_file), folder)
    )
    return state


def read_past(folder: RunFolder) -> SearchState:
    """The trials that ended in earlier sessions of a search."""
    state = _empty_state(folder)
    if any(folder.trials()):
        over = {past.trial_id for past in read_history(folder, _objective(folder)) if past.over}
        for trial in folder.trials():
            _take(state, trial, waits=trial.trial_id not in over)
    state.total = state.num_ended
    return state


def _empty_state(folder: RunFolder) -> SearchState:
    images = _count_images(folder)
    return SearchState(
        metric=_objective(folder).metric,
        train_images=images["train"],
        val_images=images["validation"],
    )


def _objective(folder: RunFolder) -> Objective:
    return (
        load_recorded_config(folder.config_file).objective
        if folder.config_file.exists()
        else Objective()
    )


def _take(state: SearchState, trial: TrialFolder, waits: bool) -> None:
    """Adds a trial to a state; of one that waits for a worker, only the best epoch counts."""
    event = _last_event(trial, Objective(state.metric))
    if event is not None:
        facts = trial.read_facts()
        event = replace(event, status="pending") if waits else event
        state.take(event, on_bank=facts.training == "bank")


def _last_event(trial: TrialFolder, objective: Objective) -> TrialEvent | None:
    """What last happened to a trial; None where it waits for a worker."""
    status, epochs = trial.read_status(), trial.read_metrics()
    if status.status == "pending":
        return None
    proposal = trial.read_proposal()
    report = TrialReport()
    if epochs:
        best = BestEpoch.of_row(objective.best(epochs), objective.metric)
        report = TrialReport(epoch=int(epochs[-1]["epoch"]), best=best)
    return TrialEvent(
        trial_id=trial.trial_id,
        name=proposal.spec.name,
        family=proposal.spec.model.family,
        epochs=proposal.spec.train.epochs,
        status=status.status,
        report=report,
        reason=status.reason,
        params=dict(proposal.params),
    )


def _count_images(folder: RunFolder) -> Counter[str]:
    """By split."""
    if not (folder.root / "manifest.json").exists():
        return Counter()
    try:
        return Counter(read_sizes(folder.root))
    except DataError as error:
        raise UserError(str(error)) from error


def _planned(config: SearchConfig, folder: RunFolder) -> int:
    families = config.family_names
    if not folder.backbones_dir.exists():  # no weights: families with a backbone were left out
        families = tuple(f for f in families if not backbones_of(needs_of_family(config, f)))
    baselines = sum(spec.model.family in families for spec in BASELINES.values())
    proposed = config.trials if config.baselines != "only" else 0
    return proposed + (baselines if config.baselines != "off" else 0)
