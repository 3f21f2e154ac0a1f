"""How far the trials are, noted by the driver in one file: who watches need not read them all.

Ten thousand trials are 40,000 files; `status --watch` would read them every two seconds. The file
is there while trials run. It may come from an untrusted folder: what it cannot be is passed over.
"""

import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pawtune.search.errors import UserError
from pawtune.search.progress.bars import TRIALS, Bar
from pawtune.search.progress.live_view import BestTrial, RunningTrial, SearchState
from pawtune.search.storage.retry import must_exist
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json

METRIC_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
NOTE_S = 2.0
COUNTS = ("total", "train_images", "val_images", "saved_epochs", "saved_passes")


def state_file(run: RunFolder) -> Path:
    """Where a driver notes how far its trials are; not there afterwards."""
    return run.root / "progress.json"


class StateNotes:
    """Notes the state of a search in its folder, every two seconds at most.

    Args:
        run: The run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._noted_at = float("-inf")

    def take(self, state: SearchState, bar: Bar) -> None:
        """Notes a state, unless one was noted a moment ago. It waits for no storage."""
        now = time.monotonic()
        if now - self._noted_at < NOTE_S:
            return
        self._noted_at = now
        best = state.best
        content = {
            **{name: getattr(state, name) for name in COUNTS},
            "metric": state.metric,
            "waits": state.waits,
            "ended": dict(state.ended),
            "running": {trial_id: asdict(trial) for trial_id, trial in state.running.items()},
            "best": None
            if best is None
            else {
                **asdict(best),
                "params": dict(best.params),
                "trial_id": state.leader,
            },
            "bar": {"began": bar.began, "at": bar.at, "behind": bar.behind},
            "noted": time.time(),
        }
        with suppress(OSError, ValueError):
            must_exist(self._run.root)  # else a folder would be made where it is away
            write_json(state_file(self._run), content)

    def over(self) -> None:
        """The trials are over."""
        with suppress(OSError):
            state_file(self._run).unlink(missing_ok=True)


def read_noted(run: RunFolder, since: float) -> tuple[SearchState, Bar] | None:
    """What the driver noted, for a terminal; None where it has noted nothing.

    Args:
        run: The run.
        since: When that driver took the run, in Unix seconds: older notes are another's.
    """
    try:
        content = read_json(state_file(run))
        if float(content["noted"]) < since:
            return None
        return _state_of(content)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _state_of(content: dict[str, Any]) -> tuple[SearchState, Bar]:
    state = SearchState()
    for name in COUNTS:
        setattr(state, name, int(content[name]))
    if METRIC_RULE.fullmatch(str(content["metric"])):
        state.metric = content["metric"]
    state.waits = str(content["waits"])
    state.ended = Counter({str(name): int(n) for name, n in content["ended"].items()})
    for trial_id, trial in content["running"].items():
        best = trial["best"]
        state.running[str(trial_id)] = RunningTrial(
            name=str(trial["name"]),
            family=str(trial["family"]),
            epoch=int(trial["epoch"]),
            epochs=max(1, int(trial["epochs"])),
            best=None if best is None else float(best),
        )
    if content["best"] is not None:
        state.lead(_best_of(content["best"]), str(content["best"].get("trial_id", "")))
    bar = content["bar"]
    began, at, behind = (float(bar[name]) for name in ("began", "at", "behind"))
    return state, Bar(TRIALS, state.progress, state.total, began, at, behind, whole=state.num_ended)


def _best_of(content: dict[str, Any]) -> BestTrial:
    return BestTrial(
        value=float(content["value"]),
        accuracy=float(content["accuracy"]),
        loss=float(content["loss"]),
        name=str(content["name"]),
        epoch=int(content["epoch"]),
        params=dict(content["params"]),
    )
