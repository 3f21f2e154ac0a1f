"""Errors of Ray's tasks and actors, unwrapped to what was raised there."""

from typing import Any

import ray

from pawtune.data_pipeline.errors import DataError
from pawtune.models.errors import ModelError
from pawtune.search.errors import UserError

FOR_PEOPLE = (UserError, DataError, ModelError)


def result(task: Any, *kinds: type[Exception]) -> Any:
    """What a task returns.

    Args:
        task: Ray's reference to it.
        kinds: Exceptions that are raised as the task raised them; by default FOR_PEOPLE.

    Raises:
        RayTaskError: Another exception in the task, with Ray's account of it.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, kinds or FOR_PEOPLE) else error) from None
