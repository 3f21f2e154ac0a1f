"""Shows work that trials share while they make it: a bar for each job that is not done."""

import time
from typing import Any

import ray
from ray import tune

from pawtune.search.cluster.resource_wait import StageProgress
from pawtune.search.tuning.unsaved import Unsaved

LOOK_S = 0.5  # between two questions to the board


class SharedWorkProgress(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Asks the board how far its jobs are, between Tune's steps.

    Args:
        board: Board of the shared work, from `start_board`.
        progress: Called with (job, done, total, what it waits for).
    """

    def __init__(self, board: Any, progress: StageProgress) -> None:
        self._board = board
        self._progress = progress
        self._shown: dict[str, tuple[int, str]] = {}
        self._asked_at = 0.0
        self._answer: Any = None  # what the board was asked for and has not been shown

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune some ten times a second; waits for nothing."""
        if self._answer is None and time.monotonic() - self._asked_at >= LOOK_S:
            self._ask()
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._show()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Shows what was finished last."""
        self._ask()
        self._show()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._answer = self._board.progress.remote()

    def _show(self) -> None:
        """Shows what has changed since the last time; work found in the cache is never shown."""
        jobs = ray.get(self._answer)
        self._answer = None
        for job in jobs:
            now = job.done, job.waits
            is_found = job.name not in self._shown and job.done == job.total
            if not is_found and self._shown.get(job.name) != now:
                if job.name not in self._shown and job.done:
                    self._progress(job.name, 0, job.total)  # from here its seconds count
                self._shown[job.name] = now
                self._progress(job.name, job.done, job.total, job.waits)
