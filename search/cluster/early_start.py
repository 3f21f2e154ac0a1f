"""A local Ray started while images are looked through: one waits for processes, one for disks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

import ray

from pawtune.data_pipeline.progress import Progress
from pawtune.search.cluster.connection import connect
from pawtune.search.cluster.node_events import Say

FROM_IMAGES = 500  # fewer are looked through before Ray would stand

Loaded = TypeVar("Loaded")


def load_beside_ray(
    load: Callable[[Progress], Loaded],
    progress: Progress,
    address: str | None,
    say: Say,
) -> Loaded:
    """Loads the images in a thread, and meanwhile starts a local Ray where there are many.

    What is refused before the first image is read is refused before Ray starts. Ray starts in the
    calling thread: it cannot be shut down by another.

    Args:
        load: Is called with a progress function, in a thread where Ray is to be started.
        progress: Takes how far the load is.
        address: Address of a cluster; with one, and where Ray runs already, nothing is started.
        say: Takes a line for the person who watches.

    Returns:
        What `load` returns.

    Raises:
        KeyboardInterrupt: The search is interrupted; the thread has ended.
    """
    if address not in (None, "", "local") or ray.is_initialized():
        return load(progress)
    many_or_done, interrupted = Event(), Event()

    def watched(stage: str, done: int, total: int | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        if stage == "hash" and total is not None and total >= FROM_IMAGES:
            many_or_done.set()
        progress(stage, done, total)

    with ThreadPoolExecutor(1, "load") as pool:
        loading = pool.submit(load, watched)
        loading.add_done_callback(lambda _: many_or_done.set())
        try:
            many_or_done.wait()
            if not loading.done():
                connect(address, say)
            return loading.result()
        except BaseException:
            interrupted.set()
            raise
