"""TensorBoard, live: the driver writes every epoch as it arrives."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from pawtune.search.config.search_config import SearchConfig
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.tensorboard.event_pictures import Samples
from pawtune.search.tensorboard.search_events import (
    begin_search_events,
    finish_search_events,
    rebuild_events,
)
from pawtune.search.tensorboard.trial_events import TrialEvents
from pawtune.search.trial_report import TrialReport
from pawtune.search.tuning.unsaved import Unsaved

logger = logging.getLogger(__name__)


class TensorBoardLogger(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Writes `tb/`: a run a trial, and one for the search, flushed at every epoch.

    Nothing that goes wrong here ends a search: event files are derived, and are written again by
    `pawtune tensorboard` or when the search is resumed.

    Args:
        run: The run. Trials' own records must be written before this callback is called.
        config: The search.
        families: Names of the families that the search may propose.
    """

    def __init__(self, run: RunFolder, config: SearchConfig, families: Sequence[str]) -> None:
        self._run = run
        self._config = config
        self._families = families
        self._objective = config.objective
        self._samples = Samples(run)
        self._open: dict[str, TrialEvents] = {}
        self._broken = False
        self._continued = any(run.trials())
        self._begun = False

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune went round once; the first time, workers have been called for."""
        self._begin_once()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker took the trial, for the first time or again."""
        self._begin_once()
        trial_id = trial.config["trial_id"]
        if trial_id not in self._open:
            self._attempt(lambda: self._begin_trial(trial_id))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch ended, or the trial failed."""
        events = self._open.get(trial.config["trial_id"])
        report = TrialReport.from_result(result)
        if events is not None and report.epoch:
            self._attempt(lambda: events.add(report.row, report.num_weights))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, in whatever way."""
        events = self._open.pop(trial.config["trial_id"], None)
        if events is not None:
            self._attempt(events.end)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gave the trial up."""
        self.on_trial_complete(iteration, trials, trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The search is over."""
        while self._open:
            self._attempt(self._open.popitem()[1].end)
        self._attempt(lambda: finish_search_events(self._run, self._objective, self._samples))

    def _begin_once(self) -> None:
        if not self._begun:
            self._begun = True
            self._attempt(self._begin)

    def _begin(self) -> None:
        if self._continued:
            rebuild_events(self._run, self._config, self._families, self._samples)
        else:
            begin_search_events(self._run, self._config, self._families, self._samples)

    def _begin_trial(self, trial_id: str) -> None:
        folder = self._run.trial(trial_id)
        self._open[trial_id] = TrialEvents(self._run, folder, self._objective, self._samples)

    def _attempt(self, write: Callable[[], None]) -> None:
        """Writes, until a write fails: then no more."""
        if self._broken:
            return
        try:
            write()
        except (OSError, ValueError) as error:
            self._broken = True
            logger.warning("TensorBoard's files are not written any more: %s", error)
