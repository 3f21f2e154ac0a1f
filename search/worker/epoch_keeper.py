"""What a trial keeps after each epoch: the best so far, its metrics, the state to continue from."""

import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pawtune.search.objective import Objective
from pawtune.search.storage.attempts import check_claim
from pawtune.search.storage.retry import must_exist, retry_storage
from pawtune.search.storage.run_folder import TrialFolder, write_bytes
from pawtune.search.trial_report import BestEpoch, TrialReport

if TYPE_CHECKING:
    from pawtune.models.training.epoch_metrics import EpochResult

STATE_INTERVAL_S = 2.0  # epochs shorter than this would spend more on saving than on training
# Large states, or slow storage: what takes longer than this to save is saved each 20 times as long.
SLOW_S = 0.1
STATE_SHARE = 20
BEST_BEFORE = "best-before-"  # files beside the state that a later epoch has replaced in `best/`


class Core(Protocol):
    """The trained part of a network: whatever writes its weights to a file."""

    def save_weights(self, filepath: Path) -> None:
        """Writes them."""


class EpochKeeper:
    """Keeps a trial's best epoch, its metrics, and its state to continue from, in that order.

    A trial that dies goes on from its last state, with the best epoch as it was then: what a later
    epoch replaces is kept beside the state.

    Args:
        folder: The trial's.
        objective: What makes an epoch the best.
        core: The trained part, whose weights are kept.
        save_state: Writes the state after an epoch to `folder.last`.
        rows: Epochs finished before, where the trial continues.
        claim: As `begin_attempt` gave it; None: nobody else can have the trial.
    """

    def __init__(
        self,
        folder: TrialFolder,
        objective: Objective,
        core: Core,
        save_state: Callable[[int], None],
        rows: list[dict[str, float]],
        claim: str | None = None,
    ) -> None:
        self._folder = folder
        self._objective = objective
        self._core = core
        self._save_state = save_state
        self._rows = rows
        self._claim = claim
        self._best = objective.best(rows) if rows else None
        self._has_state = bool(rows)
        self._saved_at = time.monotonic()
        self._pause_s = 0.0

    def keep(
        self, result: "EpochResult", done: bool, num_weights: int | None = None
    ) -> TrialReport:
        """Writes an epoch; returns what is to be reported of it.

        Raises:
            TakenOverError: Another worker has this trial.
            StorageError: The run folder cannot be written.
        """
        if self._claim is not None:
            check_claim(self._folder, self._claim)
        row = {"epoch": result.epoch, **result.metrics}
        if self._best is None or self._objective.key(row) > self._objective.key(self._best):
            retry_storage(lambda: self._keep_best(result))
            self._best = row
        self._rows.append(row)
        retry_storage(self._keep_metrics)
        began = time.monotonic()
        if not done and began - self._saved_at > max(STATE_INTERVAL_S, self._pause_s):
            retry_storage(lambda: self._keep_state(result.epoch))
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

    def _keep_metrics(self) -> None:
        must_exist(self._folder.root)
        self._folder.write_metrics(self._rows)

    def _keep_state(self, epoch: int) -> None:
        # One level only: where the run folder is away, none must appear in its place.
        self._folder.last.mkdir(exist_ok=True)
        self._save_state(epoch)
        self._has_state = True
        for file in self._folder.last.glob(f"{BEST_BEFORE}*"):
            file.unlink()  # the best epoch up to this state is again the one in `best/`
        if self._claim is not None:
            self._folder.write_attempts(0, self._claim)

    def _keep_best(self, result: "EpochResult") -> None:
        self._folder.best.mkdir(exist_ok=True)
        if self._has_state and self._best is not None:
            keep_best_before(self._folder, int(self._best["epoch"]))
        temporary = self._folder.best / ".new.weights.h5"
        self._core.save_weights(temporary)
        temporary.replace(self._folder.best_weights)
        predictions = io.BytesIO()
        np.save(predictions, result.val_probabilities.astype("float32"), allow_pickle=False)
        write_bytes(self._folder.best_predictions, predictions.getvalue())


def keep_best_before(folder: TrialFolder, epoch: int) -> None:
    """Keeps the best epoch that belongs to the last state, before a later one replaces it."""
    for file in (folder.best_weights, folder.best_predictions):
        copy = _copy(folder, epoch, file)
        if any(folder.last.glob(f"{BEST_BEFORE}*.{file.name}")):
            continue  # that of the state is there; this one came after it
        temporary = folder.last / f".{copy.name}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)  # costs nothing: the file that comes is another one
        except OSError:
            shutil.copyfile(file, temporary)
        temporary.replace(copy)


def restore_best(folder: TrialFolder, epoch: int) -> None:
    """Puts back the best epoch as it was at the last state, where a later one replaced it."""
    for file in (folder.best_weights, folder.best_predictions):
        copy = _copy(folder, epoch, file)
        if copy.exists():
            copy.replace(file)


def _copy(folder: TrialFolder, epoch: int, file: Path) -> Path:
    return folder.last / f"{BEST_BEFORE}{epoch}.{file.name}"
