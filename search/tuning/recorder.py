"""What becomes of each trial, written as it happens; and when a search had better stop."""

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray import tune

from pawtune.models.spec import TrialSpec
from pawtune.search.progress.live_view import TrialEvent
from pawtune.search.storage.records import EARLY_STOP, Status
from pawtune.search.storage.retry import StorageError, must_exist, retry_storage
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.trial_report import TrialReport
from pawtune.search.tuning.scheduler import FamilyScheduler
from pawtune.search.tuning.unsaved import Unsaved

ALIKE_FAILURES = 3  # this many with one error and no trial that got anywhere: hopeless


@dataclass
class StopSignal(Unsaved, tune.Stopper):  # type: ignore[misc]  # Ray is untyped
    """Ends the whole search when anybody has a reason to; the first reason counts."""

    deadline: float | None = None
    reason: str | None = None

    def seconds_left(self) -> float:
        """Until the deadline; infinite where there is none."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def stop(self, reason: str) -> None:
        """Asks for the end; safe from a signal handler, which could not wait for a lock."""
        self.reason = self.reason or reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial."""
        return False

    def stop_all(self) -> bool:
        """Polled by Tune between events."""
        if self.seconds_left() < 0:
            self.stop("time budget")
        return self.reason is not None


class RecordKeeper(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Writes `status.json` of every trial and counts how trials end.

    Args:
        run: Run whose trials they are.
        scheduler: Knows which trials ASHA stopped; None without one.
        stop: Asked to end the search when every trial fails alike.
        show: Called with every event.
    """

    def __init__(
        self,
        run: RunFolder,
        scheduler: FamilyScheduler | None,
        stop: StopSignal,
        show: Callable[[TrialEvent], None],
    ) -> None:
        self._run = run
        self._scheduler = scheduler
        self._stop = stop
        self._show = show
        self._started: dict[str, tuple[float, float]] = {}  # wall clock, monotonic clock
        self._before: dict[str, float] = {}  # seconds in earlier sessions
        self._running: dict[str, Any] = {}
        self._last: dict[str, TrialReport] = {}
        self._failures: Counter[str] = Counter()
        self.counts: Counter[Status] = Counter()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker took the trial, for the first time or again."""
        trial_id = trial.config["trial_id"]
        if trial_id not in self._started:
            self._started[trial_id] = time.time(), time.monotonic()
            folder = self._run.new_trial(trial_id)
            self._before[trial_id] = retry_storage(lambda: _seconds_so_far(folder))
        self._running[trial.config["trial_id"]] = trial
        self._write(trial, "running")
        self._show(self._event(trial, "running"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch ended, or the trial failed."""
        report = self._last[trial.config["trial_id"]] = TrialReport.from_result(result)
        if report.epoch:
            self._show(self._event(trial, "running"))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial's last result is in."""
        trial_id = trial.config["trial_id"]
        report = self._last.get(trial_id, TrialReport())
        if report.failure is not None:
            self._fail(trial, report.failure)
        elif report.storage is not None:
            self._stop.stop(report.storage)
            self._end(trial, "stopped", report.storage)
        elif report.epoch >= trial.config["spec"]["train"]["epochs"]:
            self._end(trial, "completed")
        elif self._scheduler is not None and trial_id in self._scheduler.stopped:
            self._end(trial, "stopped", EARLY_STOP)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gave the trial up; a trial's own errors arrive as results."""
        if trial.config["trial_id"] in self._last:
            reason = "its workers died again and again, each time after some epochs"
        else:
            reason = "Ray could not start a worker for it"
        self._fail(trial, f"{reason}; `pawtune doctor` tries one and shows its error")

    def close(self) -> None:
        """Marks what was still running when the search ended; it can be continued."""
        for trial in list(self._running.values()):
            with suppress(StorageError):  # it then stays marked as running, which continues as well
                self._end(trial, "stopped", self._stop.reason or "interrupted")

    def _fail(self, trial: Any, reason: str) -> None:
        alike = reason.partition(":")[0]  # the kind of error; numbers and places differ
        self._failures[alike] += 1
        self._end(trial, "failed", reason)
        if self._failures[alike] >= ALIKE_FAILURES and not self._any_succeeds():
            self._stop.stop(f"every trial fails alike: {reason}")

    def _any_succeeds(self) -> bool:
        """Whether a trial ended well, failed in another way, or is past its first epoch."""
        ended_otherwise = self.counts.total() > self.counts["failed"] or len(self._failures) > 1
        reports = [self._last[i] for i in self._running if i in self._last]
        return ended_otherwise or any(report.epoch for report in reports)

    def _end(self, trial: Any, status: Status, reason: str | None = None) -> None:
        self._write(trial, status, reason)
        self._started.pop(trial.config["trial_id"], None)
        self._running.pop(trial.config["trial_id"], None)
        self.counts[status] += 1
        if reason is None or reason == EARLY_STOP or status == "failed":
            self._run.new_trial(trial.config["trial_id"]).drop_last()
        self._show(self._event(trial, status, reason))

    def _write(self, trial: Any, status: Status, reason: str | None = None) -> None:
        trial_id = trial.config["trial_id"]
        now = time.time(), time.monotonic()
        started = self._started.get(trial_id, now)
        details: dict[str, Any] = {"reason": reason, "started": started[0]}
        if status != "running":
            # Not the difference of two looks at the clock: somebody may set it in between.
            seconds = now[1] - started[1]
            details |= {
                "finished": round(started[0] + seconds, 6),
                "seconds": round(seconds + self._before.get(trial_id, 0), 3),
            }
        folder = self._run.new_trial(trial_id)

        def write() -> None:
            must_exist(self._run.root)  # else a folder would be made where it is away
            folder.write_status(status, **details)

        retry_storage(write)

    def _event(self, trial: Any, status: Status, reason: str | None = None) -> TrialEvent:
        spec = trial.config["spec"]
        return TrialEvent(
            trial_id=trial.config["trial_id"],
            name=spec["name"],
            family=spec["model"]["family"],
            epochs=spec["train"]["epochs"],
            status=status,
            report=self._last.get(trial.config["trial_id"], TrialReport()),
            reason=reason,
            params=dict(TrialSpec.model_validate(spec).params()),
        )


def _seconds_so_far(folder: TrialFolder) -> float:
    must_exist(folder.root)
    return folder.seconds_so_far()
