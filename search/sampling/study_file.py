"""The study file: the trials that have ended, as optuna-dashboard shows them.

Nothing reads it but people's tools: it is derived from `trials/`, and each session makes it anew.
Optuna makes the file, with its tables. A trial through Optuna would be some 75 statements, 22 ms
of the driver's processor; so trials that end within some seconds of each other go into the tables
together, in one transaction, for 0.1 ms each. A thread does that: a file system that is slow does
not hold up the search.
"""

import json
import math
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from pawtune.search.objective import Objective

INTERVAL_S = 5.0
TABLES = "v3.2.0.a"  # what Optuna calls them; others, of a later Optuna, are left to it
LOCKED_S = 30.0  # a reader holds the file for milliseconds
GONE = "somebody deleted its study"  # optuna-dashboard has a button for that


class StudyFile:
    """Writes the trials of one session, a few seconds after they end and at its own end.

    Args:
        path: Of the SQLite file; what lies there is removed.
        name: Of the study.
        objective: Its direction.
        say: Takes a line for the person who watches; from another thread, too.
    """

    def __init__(
        self, path: Path, name: str, objective: Objective, say: Callable[[str], None]
    ) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):  # a killed driver may leave the others
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        self._path = path
        self._name = name
        self._say = say
        self._mutex = threading.Lock()  # on what is to be written
        self._writing = threading.Lock()
        self._pending: list[FrozenTrial] = []
        self._timer: threading.Timer | None = None
        self._written = 0
        self._fails = False
        self._closed = False
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": LOCKED_S}}
        )
        study = optuna.create_study(storage=storage, study_name=name, direction=objective.direction)
        storage.remove_session()
        storage.engine.dispose()
        with closing(self._connect()) as connection:
            ((tables,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        self._through_optuna = None if tables == TABLES else study

    def add(self, *trials: FrozenTrial) -> None:
        """Has ended trials written within INTERVAL_S."""
        with self._mutex:
            self._pending += trials
            if self._pending and self._timer is None and not self._closed:
                self._timer = threading.Timer(INTERVAL_S, self._write_some)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Writes what is left. A file that cannot be written ends no search."""
        with self._mutex:
            timer, self._closed = self._timer, True
        if timer is not None:
            timer.cancel()
            timer.join()  # it may be writing, and have something to say about that
        error = self.write()
        if error is not None:
            self._say(
                f"study.db lacks {len(self._pending)} of the trials: {error}; "
                "`pawtune resume` makes it anew"
            )

    def _write_some(self) -> None:
        error = self.write()
        if error is not None and not self._fails and not self._closed:
            self._say(f"study.db cannot be written, trying again: {error}")
        self._fails = error is not None
        with self._mutex:
            self._timer = None
        self.add()  # what failed, and what came meanwhile

    def write(self) -> str | None:
        """Writes what is there to write now.

        Returns:
            Why that failed, in one line; the trials are then kept for another attempt.
        """
        with self._writing:
            while trials := self._next():
                try:
                    self._insert(trials)
                except (sqlite3.Error, StorageInternalError, OSError) as error:
                    return str(error).partition("\n")[0]
                with self._mutex:
                    del self._pending[: len(trials)]
                self._written += len(trials)
            return None

    def _next(self) -> list[FrozenTrial]:
        """What one transaction takes: everything, through Optuna one trial."""
        with self._mutex:
            return list(self._pending if self._through_optuna is None else self._pending[:1])

    def _connect(self) -> sqlite3.Connection:
        # Where the run folder is away, or the file deleted, none is to be made.
        address = f"{self._path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=LOCKED_S)

    def _insert(self, trials: Sequence[FrozenTrial]) -> None:
        if self._through_optuna is not None:
            try:
                self._through_optuna.add_trials(trials)
            except KeyError as error:
                raise sqlite3.DatabaseError(GONE) from error
            return
        with closing(self._connect()) as connection, connection:  # all of them or none
            found = connection.execute(
                "SELECT study_id FROM studies WHERE study_name = ?", (self._name,)
            ).fetchone()
            if found is None:
                raise sqlite3.DatabaseError(GONE)
            for number, trial in enumerate(trials, start=self._written):
                _insert_trial(connection, found[0], number, trial)


def _insert_trial(
    connection: sqlite3.Connection, study: int, number: int, trial: FrozenTrial
) -> None:
    times = (_stored_time(trial.datetime_start), _stored_time(trial.datetime_complete))
    row = connection.execute(
        "INSERT INTO trials (study_id, number, state, datetime_start, datetime_complete) "
        "VALUES (?, ?, ?, ?, ?)",
        (study, number, trial.state.name, *times),
    ).lastrowid
    if trial.value is not None:
        connection.execute(
            "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, ?)",
            (row, *_stored_value(trial.value)),
        )
    connection.executemany(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
        "VALUES (?, ?, ?, ?)",
        [
            (row, name, kind.to_internal_repr(trial.params[name]), distribution_to_json(kind))
            for name, kind in trial.distributions.items()
        ],
    )
    connection.executemany(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        [(row, key, json.dumps(value)) for key, value in trial.user_attrs.items()],
    )
    connection.executemany(
        "INSERT INTO trial_intermediate_values "
        "(trial_id, step, intermediate_value, intermediate_value_type) VALUES (?, ?, ?, ?)",
        [(row, step, *_stored_value(value)) for step, value in trial.intermediate_values.items()],
    )


def _stored_value(value: float) -> tuple[float | None, str]:
    """A value with its kind: SQLite has neither infinity nor NaN."""
    if math.isfinite(value):
        return value, "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


def _stored_time(time: datetime | None) -> str | None:
    """A local time as the file has it: in UTC, without saying so."""
    if time is None:
        return None
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
