"""`pawtune push`: a run, finished or running, into a tracker."""

import time
from collections.abc import Callable

from pawtune.search.errors import UserError
from pawtune.search.integrations.mlflow_push import push_to_mlflow
from pawtune.search.integrations.wandb_push import push_to_wandb
from pawtune.search.run import Run
from pawtune.search.storage.run_lock import is_running

TRACKERS: dict[str, Callable[[Run, str | None, str], str]] = {
    "mlflow": push_to_mlflow,
    "wandb": push_to_wandb,
}
FOLLOW_S = 30.0


def push(run: Run, to: str, uri: str | None = None, project: str = "pawtune") -> str:
    """Writes a run into a tracker; again: what is new since.

    Args:
        run: The run, finished or not.
        to: `mlflow` or `wandb`.
        uri: URI of the tracker's server or store.
        project: MLflow's experiment, or W&B's project.

    Returns:
        What the tracker calls it.

    Raises:
        UserError: No such tracker, or its library is not installed.
    """
    if to not in TRACKERS:
        raise UserError(f"--to must be {' or '.join(TRACKERS)}, received {to!r}; give one of them")
    return TRACKERS[to](run, uri, project)


def follow(run: Run, push_once: Callable[[], object]) -> None:
    """Pushes while a search runs, every FOLLOW_S."""
    while is_running(run.folder):
        push_once()
        time.sleep(FOLLOW_S)
        run.folder.refresh()
