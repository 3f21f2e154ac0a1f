"""How far the trials are, noted by the driver in one file: who watches need not read them all.

Ten thousand trials are 40,000 files; `status --watch` would read them every two seconds. The file
is there while trials run. It may come from an untrusted folder: what it cannot be is passed over.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter

from pawtune.search.errors import UserError
from pawtune.search.progress.bars import TRIALS, Bar
from pawtune.search.progress.live_view import SearchState
from pawtune.search.storage.retry import must_exist
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json

NOTE_S = 2.0


@dataclass(frozen=True)
class Notes:
    """What the file holds.

    Attributes:
        state: The search; of the trials' best epochs that of the best trial alone.
        began: Time at which the trials began, see `Bar`.
        at: Time at which they were as far as they are.
        behind: Trials that were done before.
        noted: When that was, in Unix seconds.
    """

    state: SearchState
    began: FiniteFloat
    at: FiniteFloat
    behind: FiniteFloat
    noted: FiniteFloat


NOTES = TypeAdapter(Notes)


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
        bests = {name: best for name, best in state.bests.items() if name == state.leader}
        found = replace(state, bests=bests)
        notes = Notes(found, bar.began, bar.at, bar.behind, time.time())
        with suppress(OSError, ValueError):
            must_exist(self._run.root)  # else a folder would be made where it is away
            write_json(state_file(self._run), NOTES.dump_python(notes, mode="json"))

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
        notes = NOTES.validate_python(read_json(state_file(run)))
    except (UserError, ValueError):
        return None
    if notes.noted < since:
        return None
    state, times = notes.state, (notes.began, notes.at, notes.behind)
    return state, Bar(TRIALS, state.progress, state.total, *times, whole=state.num_ended)
