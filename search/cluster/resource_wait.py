"""What work before the trials, and trials, wait for when a cluster has no room for them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray

from pawtune.search.cluster.capacity import amount
from pawtune.search.cluster.connection import available_resources

USUAL_S = 15.0  # a worker that starts takes that long on a busy machine
LOOK_S = 5.0  # between two looks
LONG_S = 600.0  # a machine of a cloud comes within some minutes, unless none is available


class Progress(Protocol):
    """Takes how far a stage is.

    Called with (done, total), and while it gets on no further because the cluster has no room,
    with what it waits for.
    """

    def __call__(self, done: int, total: int, waits: str = "") -> None: ...


class StageProgress(Protocol):
    """The same for several stages, each by its name."""

    def __call__(self, name: str, done: int, total: int, waits: str = "") -> None: ...


def silent(done: int, total: int, waits: str = "") -> None:
    """Progress that nobody watches."""


def wait_for_room(options: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Waits until the cluster has room for a task, and says meanwhile what for.

    A task that does nothing goes ahead of the real ones: theirs do not say when they have begun.

    Args:
        options: Options of the task in Ray's words: `num_cpus`, `num_gpus`, where it must run.
        tell: Called every few seconds of a longer wait with what is missing.
    """
    if not options.get("num_cpus") and not options.get("num_gpus"):
        return  # there always is
    began = time.monotonic()
    ahead = _nothing.options(**options).remote()
    try:
        ready, _ = ray.wait([ahead], timeout=USUAL_S)
        while not ready:
            asked = options.get("num_cpus", 0), options.get("num_gpus", 0)
            tell(find_shortage(*asked).text(time.monotonic() - began))
            ready, _ = ray.wait([ahead], timeout=LOOK_S)
    except BaseException:
        ray.cancel(ahead)
        raise


@dataclass(frozen=True)
class ResourceShortage:
    """What one look at a cluster found: what is asked, what is free, and what may come."""

    asked: str
    found: str
    may_grow: bool

    def text(self, seconds: float) -> str:
        """In words, after waiting for so many seconds."""
        hint = "; `ray status` on its head says why no node comes"
        hint = hint if self.may_grow and seconds >= LONG_S else ""
        return f"waits {seconds:.0f} s for {self.asked}; {self.found}{hint}"


def find_shortage(cpus: float, gpus: float) -> ResourceShortage:
    """Asks the cluster why there is no room for that."""
    free = ray.available_resources()
    there = amount(free.get("CPU", 0.0), free.get("GPU", 0.0))
    capacity = available_resources()
    found = f"free on all nodes together: {there} ({capacity.text()})"
    return ResourceShortage(amount(cpus, gpus), found, bool(capacity.addable))


@ray.remote(max_retries=-1)  # type: ignore[untyped-decorator]
def _nothing() -> None:
    pass
