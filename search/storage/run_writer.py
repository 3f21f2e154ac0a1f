"""The one process that writes trials' folders: workers hand it what is to be kept.

So a cluster needs no file system that its nodes share: this process runs beside the driver, where
the run folder is, and does one thing after the other.
"""

import secrets
from collections import Counter
from pathlib import Path
from typing import Any

from pawtune.search.objective import Objective
from pawtune.search.storage.run_folder import TrialFolder
from pawtune.search.storage.run_lock import process_start
from pawtune.search.storage.trial_writer import KeptTrial, TrialWriter

MAX_ATTEMPTS = 4


class LostWorkerError(RuntimeError):
    """A trial's workers died again and again."""


class TakenOverError(RuntimeError):
    """Another worker has the trial, or the driver is gone: this worker is to write no more."""


class RunWriter:
    """Writes what workers keep of a search's trials, each for the worker that began it last.

    A worker that was given up for dead, on a machine cut off from the cluster, may continue
    training for a while: another worker may have its trial by then.

    Args:
        trials_dir: The run's folder of trials.
        objective: Rule by which one epoch is better than another.
        driver: The driver's process id; after its death nothing is written.
    """

    def __init__(self, trials_dir: Path, objective: Objective, driver: int) -> None:
        self._trials_dir = trials_dir
        self._objective = objective
        self._driver = driver, process_start(driver)
        self._claims: dict[str, str] = {}
        self._attempts: Counter[str] = Counter()
        self._ended = False

    def begin(self, trial_id: str) -> tuple[str, KeptTrial]:
        """Gives a trial to a worker; one that killed its workers too often ends.

        A trial that gets on between the losses of its workers, to a new state, may lose more.

        Returns:
            The worker's claim on the trial, and what the trial continues from.

        Raises:
            LostWorkerError: Too many workers died of it.
            StorageError: The run folder cannot be used.
            TakenOverError: The search is over.
        """
        self._check_driver()
        kept = self._writer(trial_id).begin()
        self._attempts[trial_id] += 1
        if self._attempts[trial_id] > MAX_ATTEMPTS:
            raise LostWorkerError(
                f"the worker process died {MAX_ATTEMPTS} times in this trial: out of memory, or "
                "killed from outside; give trials more memory (fewer at once: --concurrency)"
            )
        self._claims[trial_id] = secrets.token_hex(8)
        return self._claims[trial_id], kept

    def write(self, trial_id: str, claim: str, what: str, record: Any) -> None:
        """Writes something of a trial.

        Args:
            trial_id: The trial.
            claim: Claim that `begin` gave the worker.
            what: The method of `TrialWriter` that writes it.
            record: Its argument.

        Raises:
            StorageError: The run folder cannot be written.
            TakenOverError: Another worker has the trial, or the search is over.
        """
        self._check_driver()
        # A trial that nobody has begun may have broken before: its worker says why.
        if self._claims.get(trial_id, claim) != claim:
            raise TakenOverError(f"trial {trial_id} was begun again by another worker")
        getattr(self._writer(trial_id), what)(record)
        if what == "keep" and record.state:
            self._attempts[trial_id] = 0

    def end(self) -> None:
        """Writes nothing any more: the driver continues alone."""
        self._ended = True

    def _check_driver(self) -> None:
        pid, started = self._driver
        if self._ended or process_start(pid) != started:
            raise TakenOverError("the driver has ended")

    def _writer(self, trial_id: str) -> TrialWriter:
        return TrialWriter(TrialFolder(self._trials_dir / trial_id), self._objective)
