"""Tune's workers, so that one that dies costs its trial and not the search."""

from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.tune.execution import tune_controller


class TolerantActorManager(tune_controller.RayActorManager):  # type: ignore[misc]  # Ray is untyped
    """As Tune's own, for all ways in which Ray says that a worker is gone.

    Where a node runs out of memory, Ray's monitor kills workers with an error that is neither an
    actor's nor a task's; Tune ends the search on it.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


def tolerate_lost_actors() -> None:
    """Has Tune use it in this process."""
    tune_controller.RayActorManager = TolerantActorManager
