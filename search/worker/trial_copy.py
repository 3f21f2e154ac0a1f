"""A trial's folder on its worker: the run folder's own, or a copy of what an object store holds.

A worker sends what it keeps before it reports an epoch, but not more often than every few seconds:
epochs may take milliseconds. Files go whole, weights before the small files that speak of them, the
state to continue from last: whoever reads finds an earlier epoch or this one.
"""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pawtune.data_pipeline.sources.object_store import (
    ObjectStore,
    explained,
    is_address,
    retry_store,
)
from pawtune.search.storage.attempts import TakenOverError
from pawtune.search.storage.mirror import PATIENCE_S, copies_of, is_small
from pawtune.search.storage.run_folder import RunFolder

INTERVAL_S = 2.0
DRIVERS_OWN = ("spec.json", "status.json")

Result = TypeVar("Result")


class TrialCopy:
    """A trial's folder as its worker has it: the run folder's own, or a copy to send from.

    Args:
        run_root: The run's folder, which every node sees, or its address in an object store.
        trial_id: The trial.
    """

    def __init__(self, run_root: str | Path, trial_id: str) -> None:
        self._address = str(run_root) if is_address(run_root) else ""
        self._store: ObjectStore | None = None
        self._sent: dict[str, tuple[int, int]] = {}
        self._sent_at = 0.0
        root = copies_of(self._address) / "workers" if self._address else Path(run_root)
        self.folder = RunFolder(root).new_trial(trial_id)

    def pull(self) -> None:
        """Fetches what an earlier worker sent, and drops what it did not.

        Raises:
            DataError: The store was away for PATIENCE_S.
        """
        if not self._address:
            return
        store = self._store = self._patiently(lambda: ObjectStore(self._address))
        prefix = f"trials/{self.folder.trial_id}"
        shutil.rmtree(self.folder.root, ignore_errors=True)
        self.folder.root.mkdir(parents=True)
        for name in self._patiently(lambda: store.files(prefix)):
            target = self.folder.root / name.removeprefix(f"{prefix}/")
            if target.name not in DRIVERS_OWN:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._patiently(lambda n=name, t=target: store.download(n, t))  # type: ignore[misc]
                self._sent[name] = _signature(target)

    def push(self, last: bool = False) -> None:
        """Sends what changed: weights and states before the small files that speak of them.

        Args:
            last: The trial has nothing more to send. Else a store that is away is not waited for:
                the next epoch sends all.

        Raises:
            DataError: The store was away for PATIENCE_S.
            TakenOverError: Another worker has the trial.
        """
        if self._store is None or not (last or time.monotonic() - self._sent_at > INTERVAL_S):
            return
        if last:
            self._patiently(self._send)
            shutil.rmtree(self.folder.root, ignore_errors=True)
            self._store = None
            return
        with suppress(OSError):  # the driver, which sends all the time, says that the store is away
            self._send()
        self._sent_at = time.monotonic()

    def _send(self) -> None:
        assert self._store is not None
        root = self.folder.root
        self._check_claim()
        files = [path for path in root.rglob("*") if path.is_file() and path.name[0] != "."]
        names = {self._name(path): path for path in files}
        # A state without the epochs before it would be no use.
        for name in sorted(names, key=lambda n: (n.endswith("/state.json"), is_small(n), n)):
            signature = _signature(names[name])
            if self._sent.get(name) != signature:
                self._store.write(name, names[name].read_bytes())
                self._sent[name] = signature
        for name in self._sent.keys() - names:
            self._store.delete(name)
            del self._sent[name]

    def _check_claim(self) -> None:
        """Refuses to send where another worker has claimed the trial since."""
        assert self._store is not None
        file = self.folder.attempts_file
        name = self._name(file)
        if file.exists() and self._sent.get(name) == _signature(file):  # ours is there
            claimed = json.loads(self._store.read(name)).get("claim")
            if claimed != self.folder.read_claim():
                raise TakenOverError(f"trial {self.folder.trial_id} was begun again elsewhere")

    def _name(self, path: Path) -> str:
        return f"trials/{self.folder.trial_id}/{path.relative_to(self.folder.root).as_posix()}"

    def _patiently(self, use: Callable[[], Result]) -> Result:
        try:
            return retry_store(use, PATIENCE_S)
        except OSError as error:
            raise explained(self._address, error) from error


def _signature(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
