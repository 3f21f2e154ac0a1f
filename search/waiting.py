"""Why trials wait: noted in the run folder while the cluster has no room for them."""

import time
from contextlib import suppress
from typing import Any

import ray
from ray import tune

from search.cluster import ResourcePlan, amount, available_resources
from search.run_folder import RunFolder
from search.unsaved import Unsaved

LOOK_S = 5.0  # between two looks
USUAL_S = 15.0  # a worker that starts takes that long on a busy machine


class WaitingNotes(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Writes into the status of a waiting trial what it waits for.

    Args:
        run: Where trials are.
        plan: What a trial asks for.
    """

    def __init__(self, run: RunFolder, plan: ResourcePlan) -> None:
        self._run = run
        self._plan = plan
        self._since: dict[str, float] = {}
        self._looked_at = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune some ten times a second."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        pending = [trial.config["trial_id"] for trial in trials if trial.status == "PENDING"]
        self._since = {trial_id: self._since.get(trial_id, now) for trial_id in pending}
        waiting = [trial_id for trial_id, since in self._since.items() if now - since >= USUAL_S]
        if not waiting:
            return
        with suppress(OSError):  # a note; the records wait for storage, this does not
            reason = why(self._plan)
            for trial_id in waiting:
                folder = self._run.new_trial(trial_id)
                if folder.status_file.exists():
                    seconds = round(now - self._since[trial_id])
                    folder.write_status("pending", reason=f"waits {seconds} s for {reason}")


def why(plan: ResourcePlan) -> str:
    """What a trial asks for, what is free, and what may come."""
    free = ray.available_resources()
    asked = amount(plan.cpus, plan.gpus)
    there = amount(free.get("CPU", 0.0), free.get("GPU", 0.0))
    return f"{asked}; free on all nodes together: {there} ({available_resources().text()})"
