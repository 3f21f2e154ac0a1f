"""What a running search sends to an object store, and when.

The run's local copy, on the driver's machine, is written as a run folder is. A thread sends what
changed every few seconds, so that a store that is slow, or away, does not hold up the trials: of
trials that run, wait or ended, of the run's folder itself and of the study; event files when a
trial ends; all that is left at the end.
"""

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from pawtune.data_pipeline.sources.object_store import one_line, retry_store
from pawtune.search.errors import UserError
from pawtune.search.storage.lease import StoreLock
from pawtune.search.storage.mirror import PATIENCE_S, Mirror
from pawtune.search.storage.run_folder import RunFolder, must_be_new
from pawtune.search.storage.run_lock import RunLock

INTERVAL_S = 2.0  # between two rounds of the thread
NOT_SENT = ("study.db", "study.db-journal", "driver.lock")


class Uploader:
    """Sends what a search writes, in a thread.

    Args:
        run: A run in an object store.
        lock: Held on it. Where another driver took it over, nothing more is sent.
        say: Called with a message when the store stops answering, and when it answers again.
    """

    def __init__(self, run: RunFolder, lock: StoreLock, say: Callable[[str], None]) -> None:
        assert run.mirror is not None
        self._run = run
        self._mirror: Mirror = run.mirror
        self._lock = lock
        self._say = say
        self._all: set[str] = set()
        self._changed: set[str] = set()
        self._running: set[str] = set()
        self._study_sent = self._study_as_it_is()  # as it was pulled
        self._mutex = threading.Lock()
        self._closing = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    @property
    def lost(self) -> bool:
        """Whether another driver has taken the run over."""
        return self._lock.lost.is_set()

    def __enter__(self) -> Self:
        self._mirror.is_driven = True
        self._thread.start()
        return self

    def abandon(self) -> None:
        """Sends nothing more: the run is given up."""
        self._closing.set()
        self._thread.join()
        self._lock.lost.set()

    def take_up(self, settled: Sequence[str], unfinished: Sequence[str]) -> None:
        """Fetches what unfinished trials continue from; has what is new about all of them sent.

        Raises:
            DataError: The store was away for PATIENCE_S.
        """
        for trial_id in unfinished:
            self._mirror.pull_trial(trial_id)
        for trial_id in (*settled, *unfinished):
            self.noted(trial_id)

    def noted(self, trial_id: str) -> None:
        """Says that something was written down of a trial."""
        with self._mutex:
            self._changed.add(trial_id)
            self._all.add(trial_id)

    def began(self, trial_id: str) -> None:
        """Says that a worker took a trial: until it ends it changes all the time."""
        with self._mutex:
            self._running.add(trial_id)
        self.noted(trial_id)

    def ended(self, trial_id: str) -> None:
        """Says that a trial ended, in whatever way."""
        with self._mutex:
            self._running.discard(trial_id)
        self.noted(trial_id)

    def _work(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            try:
                self._send_round()
                self._tell(self._lock.failing)  # there may have been nothing to send
            except OSError as error:
                self._tell(error)

    def _tell(self, error: OSError | None) -> None:
        if error is not None and not self._away:
            self._say(f"the object store does not answer, trying again: {one_line(error)}")
        if error is None and self._away:
            self._say("the object store answers again; nothing is lost")
        self._away = error is not None

    def _send_round(self, last: bool = False) -> None:
        """Sends what there is to send; what fails is sent by the next round."""
        if self.lost:
            return
        with self._mutex:
            changed, self._changed = self._changed, set(self._running)
        run, mirror = self._run, self._mirror
        try:
            mirror.send_root(leave=NOT_SENT)
            for trial_id in sorted(changed):
                mirror.send_trial(trial_id)
                if trial_id not in self._running:
                    for folder in run.tensorboard_dir.glob(f"{trial_id}-*"):
                        mirror.send_folder(folder)
            self._send_study()
            for folder in run.tensorboard_dir.glob("*") if last else ():
                mirror.send_folder(folder)
        except OSError:
            with self._mutex:
                self._changed |= changed
            raise

    def _send_study(self) -> None:
        """Sends the study if it changed: some seconds after a trial's end, as StudyFile does.

        It is sent as SQLite sees it: its file may be half-written at any moment.
        """
        study = self._study_as_it_is()
        if study is None or study == self._study_sent:
            return
        address = f"{self._run.study_file.absolute().as_uri()}?mode=ro"
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "study.db"
            try:
                with (
                    closing(sqlite3.connect(address, uri=True)) as source,
                    closing(sqlite3.connect(copy)) as target,
                ):
                    source.backup(target)
            except sqlite3.Error:
                return  # a session that begins makes it again just now; the next round sees it
            self._mirror.store.write(self._run.study_file.name, copy.read_bytes())
        self._study_sent = study

    def _study_as_it_is(self) -> tuple[int, int] | None:
        """The size of the study's file and when it was written; None where there is none."""
        try:
            found = self._run.study_file.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _insistently(self, use: Callable[[], None]) -> None:
        try:
            retry_store(use, PATIENCE_S, self._say)
        except OSError as error:
            raise UserError(
                f"{self._run.place} did not take the end of the search for {PATIENCE_S:g} s "
                f"({one_line(error)}); trials that ended are there: when the store is back, give "
                f"pawtune resume '{self._run.place}'"
            ) from error

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        self._mirror.is_driven = False
        if self.lost or (kind is not None and issubclass(kind, KeyboardInterrupt)):
            return
        with self._mutex:
            self._changed |= set(self._all)
        self._insistently(lambda: self._send_round(last=True))
        self._insistently(self._mirror.adopt_store_times)


@contextmanager
def hold_run(
    run: RunFolder, say: Callable[[str], None], new: bool = False
) -> Iterator[Uploader | None]:
    """Holds a run for this process; one in an object store is sent there meanwhile.

    Yields:
        What sends it there; None for a run that lies in its folder.

    Raises:
        UserError: Another driver holds the run; or it is to be new, and is there.
        DataError: The store cannot be used.
    """
    if run.mirror is None:
        with RunLock(run):
            yield None
        return
    with StoreLock(run.mirror) as lock:
        if new:
            must_be_new(run)
        else:
            run.mirror.pull()
        with Uploader(run, lock, say) as uploader:
            yield uploader
