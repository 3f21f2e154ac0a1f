"""Callbacks of one's own: objects that are called when a trial starts, ends an epoch, ends.

They run in the driver, one after the other, between the events of the search: what takes long
belongs into a thread. A callback that raises is reported once and called no more.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from pawtune.search.errors import UserError
from pawtune.search.progress.live_view import TrialEvent

METHODS = ("on_trial_start", "on_epoch", "on_trial_end")


class OwnCallbacks:
    """Calls the methods that each callback has with a `TrialEvent`.

    Args:
        callbacks: Objects with one or more of `on_trial_start`, `on_epoch` and `on_trial_end`.
            Instances of `ray.tune.Callback` are left to Tune, see `of_tune`.
        say: Takes a line for the person who watches.

    Raises:
        UserError: An object has none of these methods.
    """

    def __init__(self, callbacks: Sequence[object], say: Callable[[str], None]) -> None:
        self.of_tune = [item for item in callbacks if isinstance(item, tune.Callback)]
        self._own = [item for item in callbacks if not isinstance(item, tune.Callback)]
        for item in self._own:
            if not any(callable(getattr(item, name, None)) for name in METHODS):
                raise UserError(
                    f"a callback must have one of {', '.join(METHODS)}, or be a ray.tune.Callback, "
                    f"received {type(item).__name__}; give it one of these methods"
                )
        self._say = say
        self._epochs: dict[str, int] = {}  # the last epoch that was passed on, by trial

    def take(self, event: TrialEvent) -> None:
        """Passes an event on; each epoch and each start of a trial once."""
        epoch = event.report.epoch
        if event.trial_id not in self._epochs:
            self._epochs[event.trial_id] = 0
            self._call("on_trial_start", event)
        if epoch > self._epochs[event.trial_id] and event.report.failure is None:
            self._epochs[event.trial_id] = epoch
            self._call("on_epoch", event)
        if event.status not in ("pending", "running"):
            self._call("on_trial_end", event)

    def _call(self, name: str, event: TrialEvent) -> None:
        for item in list(self._own):
            method: Any = getattr(item, name, None)
            if method is None:
                continue
            try:
                method(event)
            except Exception as error:  # a search of hours does not end over a log line
                self._own.remove(item)
                self._say(
                    f"warning: {type(item).__name__}.{name} raised {type(error).__name__}: "
                    f"{error}; the search continues without this callback"
                )
