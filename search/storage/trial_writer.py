"""A trial's folder, written: its best epoch, its metrics, and the state to continue from.

Files are kept in that order, each whole or not at all. A trial that continues after its worker died
does so from its last state, with the best epoch as it was then: what a later epoch replaces in
`best/` is kept beside the state.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.safe_files import link_or_copy
from pawtune.search.objective import Objective
from pawtune.search.storage.records import STATE, TrialFacts
from pawtune.search.storage.retry import must_exist, retry_storage
from pawtune.search.storage.run_folder import TrialFolder, write_bytes, write_text

# Contents by name of the file, (bytes,) uint8: Ray hands arrays over without a copy.
Files: TypeAlias = Mapping[str, NDArray[np.uint8]]

BEST_BEFORE = "best-before-"  # files beside the state that a later epoch has replaced in `best/`


@dataclass(frozen=True)
class KeptTrial:
    """What a trial continues from.

    Attributes:
        rows: Metrics of the epochs up to the state; none where the trial begins.
        state: Files of the state after them.
        costs: Costs of the complete model, by name, as they were measured before.
    """

    rows: Sequence[Mapping[str, float]] = ()
    state: Files = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptEpoch:
    """What is kept of an epoch.

    Attributes:
        rows: Metrics of all epochs so far, this one the last.
        best: Weights and predictions; none unless the epoch is the best so far.
        state: Files that the next epoch starts from, with `STATE`; none where none is due.
    """

    rows: Sequence[Mapping[str, float]]
    best: Files = field(default_factory=dict)
    state: Files = field(default_factory=dict)


class TrialWriter:
    """Writes a trial's folder, which must be there. All that it does may be done twice.

    Args:
        folder: The trial's.
        objective: Rule by which one epoch is better than another.

    Raises:
        StorageError: By every method: the folder could not be used for a minute.
    """

    def __init__(self, folder: TrialFolder, objective: Objective) -> None:
        self._folder = folder
        self._objective = objective

    def begin(self) -> KeptTrial:
        """What the trial continues from; its best epoch is again what it was then."""
        return retry_storage(self._begin)

    def describe(self, facts: TrialFacts) -> None:
        """Writes what its worker found out."""
        retry_storage(lambda: self._folder.write_facts(facts))

    def keep(self, epoch: KeptEpoch) -> None:
        """Writes an epoch."""
        retry_storage(lambda: self._keep(epoch))

    def fail(self, account: str) -> None:
        """Writes what broke the trial, a traceback."""
        retry_storage(lambda: write_text(self._folder.error_file, account))

    def _begin(self) -> KeptTrial:
        folder = self._folder
        must_exist(folder.root)  # else nothing found there would mean that nothing was kept
        last = _epoch_of(folder.last / STATE)
        rows = [row for row in folder.read_metrics() if row["epoch"] <= last]
        if not rows or len(rows) != last:
            must_exist(folder.root)
            folder.drop_last()
            return KeptTrial()
        files = [file for file in folder.last.iterdir() if not file.name.startswith(BEST_BEFORE)]
        state = {file.name: np.fromfile(file, np.uint8) for file in files}
        best = int(self._objective.best(rows)["epoch"])
        for file in (folder.best_weights, folder.best_predictions):
            copy = folder.last / f"{BEST_BEFORE}{best}.{file.name}"
            if copy.exists():
                copy.replace(file)
        return KeptTrial(rows, state, folder.read_facts().costs())

    def _keep(self, epoch: KeptEpoch) -> None:
        folder = self._folder
        must_exist(folder.root)
        if epoch.best:
            folder.best.mkdir(exist_ok=True)
            if folder.last.exists() and len(epoch.rows) > 1:
                self._keep_best_before(int(self._objective.best(epoch.rows[:-1])["epoch"]))
            _write_files(folder.best, epoch.best)
        folder.write_metrics(epoch.rows)
        if epoch.state:
            folder.last.mkdir(exist_ok=True)
            _write_files(folder.last, epoch.state)
            for file in folder.last.iterdir():
                if file.name not in epoch.state:  # of the state before; `best/` is that of this one
                    file.unlink()

    def _keep_best_before(self, epoch: int) -> None:
        """Keeps the best epoch that belongs to the last state, before a later one replaces it."""
        folder = self._folder
        for file in (folder.best_weights, folder.best_predictions):
            if any(folder.last.glob(f"{BEST_BEFORE}*.{file.name}")):
                continue  # that of the state is there; this one came after it
            copy = folder.last / f"{BEST_BEFORE}{epoch}.{file.name}"
            temporary = copy.with_name(f".{copy.name}")
            temporary.unlink(missing_ok=True)
            link_or_copy(file, temporary)
            temporary.replace(copy)


def _write_files(folder: Path, files: Files) -> None:
    """Writes files, that which says what the others are at last."""
    for name in sorted(files, key=lambda name: (name == STATE, name)):
        write_bytes(folder / name, files[name].data)


def _epoch_of(state: Path) -> int:
    """The epoch that a state is of; 0 where there is none, or it is damaged."""
    try:
        return int(json.loads(state.read_text())["epoch"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError):
        return 0
