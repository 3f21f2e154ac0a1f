"""Hands trials to Ray Tune and waits: what runs, how many at once, and how it ends."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune

from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.cluster.node_events import head_watched
from pawtune.search.cluster.ray_internals import tune_adapted
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.errors import UserError
from pawtune.search.process import STOP_SIGNALS, handling
from pawtune.search.progress.live_view import TrialEvent
from pawtune.search.progress.reporter import Reporter
from pawtune.search.sampling.earlier_runs import Lessons
from pawtune.search.sampling.optuna_log import quiet_optuna
from pawtune.search.storage.history import PastTrial
from pawtune.search.storage.object_store_sync import Uploader
from pawtune.search.storage.retry import storage_error
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.tuning.optuna_searcher import OptunaSearcher
from pawtune.search.tuning.own_callbacks import OwnCallbacks
from pawtune.search.tuning.pending_trials import WaitingNotes
from pawtune.search.tuning.recorder import RecordKeeper, StopSignal
from pawtune.search.tuning.scheduler import FamilyScheduler
from pawtune.search.tuning.shared_work_progress import SharedWorkProgress
from pawtune.search.tuning.tensorboard_logger import TensorBoardLogger
from pawtune.search.tuning.upload_events import UploadCallback


@dataclass(frozen=True)
class Trials:
    """What is to be run.

    Attributes:
        baselines: First, all their epochs, outside the count of `config.trials`.
        families: Names of the families that the search may propose.
        num_classes: Number of classes of the data.
        plan: Resources of a trial, and how many trials run at once.
        past: Trials of earlier sessions.
        lessons: Lessons of earlier runs.
        uploader: Sends the run to its object store; None for a run that lies in a folder.
        board: Board of the work that trials share, see `start_board`; None: they share none.
    """

    baselines: Sequence[TrialSpec]
    families: Sequence[str]
    num_classes: int
    plan: ResourcePlan
    past: Sequence[PastTrial] = ()
    lessons: Lessons = Lessons()
    uploader: Uploader | None = None
    board: Any = None


@tune_adapted()
@quiet_optuna()
def run_trials(
    config: SearchConfig,
    run: RunFolder,
    trials: Trials,
    worker: Any,
    reporter: Reporter,
    callbacks: Sequence[object] = (),
) -> str | None:
    """Runs all trials to their ends.

    Args:
        config: The search.
        run: Run whose trials they are.
        trials: Baselines, families and earlier trials.
        worker: The Tune trainable that trains one.
        reporter: Shows progress.
        callbacks: The user's own callbacks, see `OwnCallbacks`.

    Returns:
        Why the search ended early; None where every trial had its turn.
    """
    own = OwnCallbacks(callbacks, reporter.say)

    def show(event: TrialEvent) -> None:
        reporter.event(event)
        own.take(event)

    proposed = config.trials if config.baselines != "only" else 0
    over = [trial for trial in trials.past if trial.over]
    total = proposed + len(trials.baselines) - len(over)
    stop = StopSignal()
    if config.time_budget_s is not None:
        stop.deadline = time.monotonic() + config.time_budget_s
    scheduler = _scheduler(config, stop)
    if scheduler is not None:
        for trial in trials.past:
            scheduler.remember(trial)
    searcher = OptunaSearcher(
        config,
        run,
        families=trials.families,
        num_classes=trials.num_classes,
        baselines=trials.baselines,
        past=trials.past,
        lessons=trials.lessons,
        say=reporter.say,
    )
    uploader = trials.uploader
    keeper = RecordKeeper(run, scheduler, stop, show)
    tuner = tune.Tuner(
        tune.with_resources(worker, trials.plan.per_trial),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=total,
            max_concurrent_trials=trials.plan.concurrency,
            reuse_actors=config.speed.reuse_workers,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(run.tune_dir),
            callbacks=[
                keeper,
                *([UploadCallback(uploader, stop.stop)] if uploader else []),
                TensorBoardLogger(run, config, trials.families),
                WaitingNotes(run, trials.plan, reporter.trials_wait, uploader),
                *([SharedWorkProgress(trials.board, reporter.stage)] if trials.board else []),
                *own.of_tune,
            ],
            # At a trial's end Tune would look for a file of its own, and where it is not seen begin
            # the trial again: trials keep their own state.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=_restarts(trials.plan)),
            stop=stop,
            verbose=0,
        ),
    )
    reporter.trials(total, trials.plan, run)
    try:
        joined = config.resources.address not in (None, "local")
        with _graceful_signals(stop, reporter), head_watched(run, joined, reporter.say):
            tuner.fit()
    except Exception as error:
        lost = storage_error(error)
        if lost is None:
            raise
        raise UserError(
            f"{lost}; what had finished is kept: make room, or bring the storage back, then "
            f"`pawtune resume {run.place}`"
        ) from error
    finally:
        try:
            keeper.close()
            searcher.close()
        finally:
            shutil.rmtree(run.tune_dir, ignore_errors=True)
            reporter.close()
    return stop.reason


def _scheduler(config: SearchConfig, stop: StopSignal) -> FamilyScheduler | None:
    if config.scheduler.name == "none":
        return None
    return FamilyScheduler(
        config.objective,
        epochs=config.epochs,
        grace_period=config.scheduler.grace_period,
        reduction_factor=config.scheduler.reduction_factor,
        seconds_left=stop.seconds_left,
    )


def _restarts(plan: ResourcePlan) -> int:
    """How often Tune may start a trial again.

    Workers that were replaced cost a trial that has not begun one start each, in the worst case
    all of them in turn. A trial that kills its workers is ended sooner, by `RunWriter.begin`.
    """
    return 10 + 2 * plan.concurrency


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial_id"])


@contextmanager
def _graceful_signals(stop: StopSignal, reporter: Reporter) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the search in order; a second one ends it at once."""

    def handle() -> None:
        if stop.reason == "interrupted":
            raise KeyboardInterrupt
        reporter.say("stopping: finished epochs are kept (press Ctrl-C again to end at once)")
        stop.stop("interrupted")

    with handling(handle, *STOP_SIGNALS):
        yield
