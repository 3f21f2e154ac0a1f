"""What a trial keeps after each epoch: the best so far, its metrics, the state to continue from."""

import io
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pawtune.search.objective import Objective
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.retry import retry_storage
from pawtune.search.storage.run_folder import BEST_PREDICTIONS, BEST_WEIGHTS
from pawtune.search.storage.trial_writer import Files, KeptEpoch, KeptTrial
from pawtune.search.trial_report import BestEpoch, TrialReport

if TYPE_CHECKING:
    from pawtune.models.training.epoch_metrics import EpochResult

STATE_INTERVAL_S = 2.0  # epochs shorter than this would spend more on saving than on training
# Large states, or slow storage: what takes longer than this to save is saved each 20 times as long.
SLOW_S = 0.1
STATE_SHARE = 20


class Core(Protocol):
    """The trained part of a network: whatever writes its weights to a file."""

    def save_weights(self, filepath: Path) -> None:
        """Writes them."""


class Records(Protocol):
    """Where a trial is kept: see `TrialWriter`."""

    def begin(self) -> KeptTrial:
        """What the trial continues from."""

    def describe(self, facts: TrialFacts) -> None:
        """Keeps what its worker found out."""

    def keep(self, epoch: KeptEpoch) -> None:
        """Keeps an epoch."""


class EpochKeeper:
    """Hands over what is to be kept of each epoch.

    Args:
        records: Keeper of the trial's records.
        objective: Rule by which one epoch is better than another.
        core: The trained part, whose weights are kept.
        save_state: (epoch, folder) → writes the state after an epoch into a folder.
        rows: Epochs finished before, where the trial continues.
    """

    def __init__(
        self,
        records: Records,
        objective: Objective,
        core: Core,
        save_state: Callable[[int, Path], None],
        rows: list[dict[str, float]],
    ) -> None:
        self._records = records
        self._objective = objective
        self._core = core
        self._save_state = save_state
        self._rows = rows
        self._best = objective.best(rows) if rows else None
        self._saved_at = time.monotonic()
        self._pause_s = 0.0

    def keep(
        self, result: "EpochResult", done: bool, num_weights: int | None = None
    ) -> TrialReport:
        """Keeps an epoch; returns what is to be reported of it.

        Raises:
            TakenOverError: Another worker has this trial.
            StorageError: The run folder cannot be written.
        """
        row = {"epoch": result.epoch, **result.metrics}
        best: Files = {}
        if self._best is None or self._objective.key(row) > self._objective.key(self._best):
            best = self._best_files(result.val_probabilities)
            self._best = row
        self._rows.append(row)
        began = time.monotonic()
        state: Files = {}
        if not done and began - self._saved_at > max(STATE_INTERVAL_S, self._pause_s):
            state = saved(lambda folder: self._save_state(result.epoch, folder))
        self._records.keep(KeptEpoch(self._rows, best, state))
        if state:
            self._saved_at = time.monotonic()
            took = self._saved_at - began
            self._pause_s = STATE_SHARE * took if took > SLOW_S else 0.0
        return TrialReport(
            epoch=result.epoch,
            metrics=result.metrics,
            best=BestEpoch.of_row(self._best, self._objective.metric),
            num_weights=num_weights,
            done=done,
        )

    def _best_files(self, probabilities: NDArray[np.floating]) -> Files:
        predictions = io.BytesIO()
        np.save(predictions, probabilities.astype("float32"), allow_pickle=False)
        weights = saved(lambda folder: self._core.save_weights(folder / BEST_WEIGHTS))
        return {**weights, BEST_PREDICTIONS: np.frombuffer(predictions.getbuffer(), np.uint8)}


def saved(save: Callable[[Path], None]) -> Files:
    """What a function writes into a folder, which is then gone.

    Raises:
        StorageError: There is no room for it.
    """

    def write() -> Files:
        with tempfile.TemporaryDirectory(prefix="pawtune-") as folder:
            save(Path(folder))
            return {file.name: np.fromfile(file, np.uint8) for file in Path(folder).iterdir()}

    return retry_storage(write, f"the temporary folder of {platform.node()}")
