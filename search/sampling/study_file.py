"""The study file: the trials that have ended, as optuna-dashboard shows them.

Nothing reads it but people's tools: it is derived from `trials/`, and each session makes it again.
A trial takes Optuna some 22 ms; a thread writes those that end within some seconds of each other
one after the other, so neither that nor a slow file system holds up the search. It also makes the
file: to load what Optuna needs for that takes two seconds.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from pawtune.search.objective import Objective

INTERVAL_S = 5.0
LOCKED_S = 30.0  # a reader holds the file for milliseconds
DELETED = "somebody deleted its study"  # optuna-dashboard has a button for that


class StudyFile:
    """Writes the trials of one session, a few seconds after they end and at its own end.

    Args:
        path: Path of the SQLite file; a file that is there already is removed.
        name: Name of the study.
        objective: Its direction.
        say: Takes a line for the person who watches; from another thread, too.
    """

    def __init__(
        self, path: Path, name: str, objective: Objective, say: Callable[[str], None]
    ) -> None:
        new = path.with_name(f".{path.name}.new")
        for file in (path, new):
            _remove(file)
        self._path = path
        self._new = new
        self._say = say
        self._mutex = threading.Lock()  # on what is to be written
        self._writing = threading.Lock()
        self._pending: list[FrozenTrial] = []
        self._timer: threading.Timer | None = None
        self._fails = False
        self._closed = False
        self._name = name
        self._directions = objective.directions
        self._study: optuna.Study | None = None
        self._storage: optuna.storages.RDBStorage | None = None

    def start(self) -> None:
        """Has the file made now, by the thread."""
        with self._mutex:
            self._write_after(0.0)

    def add(self, *trials: FrozenTrial) -> None:
        """Has ended trials written within INTERVAL_S."""
        with self._mutex:
            self._pending += trials
            if self._pending and self._timer is None and not self._closed:
                self._write_after(INTERVAL_S)

    def close(self) -> None:
        """Writes what is left. A file that cannot be written ends no search."""
        with self._mutex:
            timer, self._closed = self._timer, True
        if timer is not None:
            timer.cancel()
            timer.join()  # it may be writing, and have something to say about that
        error = self.write()
        if error is not None:
            missing = f"{len(self._pending)} of the" if self._pending else "all"
            self._say(f"study.db lacks {missing} trials: {error}; `pawtune resume` makes it again")

    def _write_after(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._write_some)
        self._timer.daemon = True
        self._timer.start()

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
        with self._writing, self._not_kept_open():
            try:
                study = self._study or self._make()
                while trial := self._next():
                    study.add_trial(trial)
                    with self._mutex:
                        del self._pending[0]
            except KeyError:
                return DELETED
            except (sqlite3.Error, StorageInternalError, OSError) as error:
                return _reason(error)
            return None

    def _make(self) -> optuna.Study:
        """The empty study. It appears whole: others may look while it is made.

        Raises:
            OSError, StorageInternalError: It cannot be written now; another attempt may succeed.
        """
        self._new.unlink(missing_ok=True)
        self._new.touch()
        try:
            self._storage = optuna.storages.RDBStorage(
                # A path is never pasted into an address, where "?" and "%" mean something.
                "sqlite:///study.db",
                engine_kwargs={"creator": self._connect},
            )
            study = optuna.create_study(
                storage=self._storage, study_name=self._name, directions=self._directions
            )
            self._let_go(self._storage)
        except Exception as error:  # SQLAlchemy's own, which Optuna wraps only once a study stands
            _remove(self._new)
            raise StorageInternalError(str(error)) from error
        os.replace(self._new, self._path)
        self._study = study
        return study

    @contextmanager
    def _not_kept_open(self) -> Iterator[None]:
        """Where the file is deleted between two writes, the later one must notice."""
        try:
            yield
        finally:
            if self._storage is not None:
                self._let_go(self._storage)

    @staticmethod
    def _let_go(storage: optuna.storages.RDBStorage) -> None:
        storage.remove_session()
        storage.engine.dispose()

    def _next(self) -> FrozenTrial | None:
        with self._mutex:
            return self._pending[0] if self._pending else None

    def _connect(self) -> sqlite3.Connection:
        # Where the run folder is away, or the file deleted, none is to be made.
        file = self._new if self._study is None else self._path
        address = f"{file.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=LOCKED_S, check_same_thread=False)


def _remove(file: Path) -> None:
    """Removes an SQLite file and those that a killed process may leave beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """What SQLite says, without Optuna's words around it."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return str(error).partition("\n")[0]
