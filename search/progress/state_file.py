"""How far the trials are, noted by the driver in one file: who watches need not read them all.

Ten thousand trials are 40,000 files; `status --watch` would read them every two seconds. The file
is there while trials run. It may come from an untrusted folder: what it cannot be is passed over.
"""

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pawtune.search.errors import UserError
from pawtune.search.progress.bars import TRIALS, Bar
from pawtune.search.progress.live_view import BestTrial, RunningTrial, SearchState
from pawtune.search.storage.retry import must_exist
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json

NOTE_S = 2.0
OF_STATE = (
    "total", "metric", "train_images", "val_images", "saved_epochs", "saved_passes", "waits",
    "ended", "running",
)  # fmt: skip


class Notes(BaseModel):
    """What the file holds: most of a `SearchState`, its best trial, and times of a `Bar`."""

    model_config = ConfigDict(frozen=True)

    total: int
    metric: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,39}$")]
    train_images: int
    val_images: int
    saved_epochs: int
    saved_passes: int
    waits: str
    ended: Counter[str]
    running: dict[str, RunningTrial]
    best: BestTrial | None
    leader: str | None
    began: float
    at: float
    behind: float
    noted: float


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
        notes = Notes(
            **{name: getattr(state, name) for name in OF_STATE},
            **{name: getattr(bar, name) for name in ("began", "at", "behind")},
            best=state.best,
            leader=state.leader,
            noted=time.time(),
        )
        with suppress(OSError, ValueError):
            must_exist(self._run.root)  # else a folder would be made where it is away
            write_json(state_file(self._run), notes.model_dump(mode="json"))

    def over(self) -> None:
        """The trials are over."""
        with suppress(OSError):
            state_file(self._run).unlink(missing_ok=True)


def read_noted(run: RunFolder, since: float) -> tuple[SearchState, Bar] | None:
    """What the driver noted, for a terminal; None where it has noted nothing.

    Args:
        run: The run.
        since: Time at which that driver took the run, in Unix seconds: older notes are another's.
    """
    try:
        notes = Notes.model_validate(read_json(state_file(run)))
    except (UserError, ValueError):
        return None
    if notes.noted < since:
        return None
    state = SearchState(**{name: getattr(notes, name) for name in OF_STATE})
    if notes.best is not None:
        state.lead(notes.best, notes.leader or "")
    times = notes.began, notes.at, notes.behind
    return state, Bar(TRIALS, state.progress, state.total, *times, whole=state.num_ended)
