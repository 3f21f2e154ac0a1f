"""Tells what sends a run to its object store when trials begin, report and end."""

from collections.abc import Callable
from typing import Any

from ray import tune

from pawtune.search.storage.object_store_sync import Uploader
from pawtune.search.tuning.unsaved import Unsaved


class UploadCallback(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Tells the uploader what happens; to be called after the records are written.

    Args:
        uploader: Uploader of the run.
        end: Ends the search, for the reason given.
    """

    def __init__(self, uploader: Uploader, end: Callable[[str], None]) -> None:
        self._uploader = uploader
        self._end = end

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker took the trial."""
        self._uploader.began(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch ended; the moment to see whether the run is still ours."""
        if self._uploader.lost:
            self._end("another driver took the run over")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, in whatever way."""
        self._uploader.ended(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gave the trial up."""
        self.on_trial_complete(iteration, trials, trial)
