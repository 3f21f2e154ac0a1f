"""Errors of Ray tasks, unwrapped to what the task raised."""

from typing import Any

import ray

from pawtune.data_pipeline.errors import DataError
from pawtune.models.errors import ModelError
from pawtune.search.errors import UserError


def result(task: Any) -> Any:
    """What a task returns.

    Raises:
        UserError, DataError, ModelError: As the task raised it.
        RayTaskError: Another exception in the task, with Ray's account of it.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise raised_in(error) from None


def raised_in(error: ray.exceptions.RayTaskError) -> Exception:
    """What a task raised, where it is meant for the user; else Ray's own account of it."""
    cause = error.cause
    return cause if isinstance(cause, UserError | DataError | ModelError) else error
