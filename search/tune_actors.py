"""Tune's workers: one that dies costs its trial, not the search, and none is ended needlessly."""

from typing import Any

import ray
import ray.tune.tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.execution import tune_controller

# What follows builds on what Tune keeps to itself, so only these versions get it.
FITS = ("2.60.",)
ENOUGH = 100_000  # more idle workers than a cluster has


class TolerantActorManager(tune_controller.RayActorManager):  # type: ignore[misc]  # Ray is untyped
    """As Tune's own, for all ways in which Ray says that a worker is gone.

    Where a node runs out of memory, Ray's monitor kills workers with an error that is neither an
    actor's nor a task's; Tune ends the search on it.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


class WarmTuneController(tune_controller.TuneController):  # type: ignore[misc]
    """As Tune's own, but a worker lives for as long as there is anything left to propose.

    Tune gives a worker whose trial has ended the next trial that waits, and ends the half-started
    worker that this one was to have. It also ends all but one of the workers whose trials end at
    the same moment. Where trials end sooner than workers start, few of many ever do.
    """

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        own = self._trial_to_actor.get(trial)
        starting = own is not None and self._actor_manager.is_actor_started(own)
        if starting and not self._search_alg.is_finished():
            return False  # the idle worker is for the trial that will be proposed next
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _maybe_cache_trial_actor(self, trial: Any) -> bool:
        self._actor_cache.increase_max(trial.placement_group_factory, ENOUGH)
        return bool(super()._maybe_cache_trial_actor(trial))

    def _cleanup_cached_actors(self, force_all: bool = False) -> None:
        # Nothing more will be proposed, nothing waits: others may have the room.
        over = self._search_alg.is_finished() and not self._staged_trials
        super()._cleanup_cached_actors(force_all=force_all or over)


def adapt_tune() -> None:
    """Has Tune use both in this process."""
    if ray.__version__.startswith(FITS):
        tune_controller.RayActorManager = TolerantActorManager
        ray.tune.tune.TuneController = WarmTuneController
