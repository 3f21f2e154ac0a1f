"""Why trials wait: noted in the run folder, and shown, while the cluster has no room for them."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray import tune

from pawtune.models.words import count
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.cluster.resource_wait import LOOK_S, USUAL_S, find_shortage
from pawtune.search.storage.object_store_sync import Uploader
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.tuning.unsaved import Unsaved


class WaitingNotes(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Writes into the status of a waiting trial what it waits for.

    Args:
        run: Run whose trials they are.
        plan: Resources that a trial asks for.
        tell: Receives how many trials wait, and for what; an empty line once none does any more.
        uploader: Sends the run to its object store; None for a run that lies in a folder.
    """

    def __init__(
        self,
        run: RunFolder,
        plan: ResourcePlan,
        tell: Callable[[str], None],
        uploader: Uploader | None = None,
    ) -> None:
        self._run = run
        self._plan = plan
        self._tell = tell
        self._uploader = uploader
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
        waiting = {i: now - since for i, since in self._since.items() if now - since >= USUAL_S}
        if not waiting:
            self._tell("")
            return
        who = count(len(waiting), "trial")
        lack = find_shortage(self._plan.cpus, self._plan.gpus)  # once: it asks the cluster's head
        self._tell(f"{who}: {lack.text(max(waiting.values()))}")
        with suppress(OSError):  # a note; the records wait for storage, this does not
            for trial_id, seconds in waiting.items():
                folder = self._run.new_trial(trial_id)
                if folder.status_file.exists():
                    folder.write_status("pending", reason=lack.text(seconds))
                    if self._uploader is not None:
                        self._uploader.noted(trial_id)
