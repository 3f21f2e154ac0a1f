"""Hashes images on all nodes of a cluster that see them, beside the driver's own threads.

The driver waits for no node: what a busy or lost one has not read when nothing else is left, the
driver's threads read as well.
"""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import ray

from pawtune.data_pipeline.splitting.image_hashes import (
    Facts,
    Read,
    Shard,
    num_threads,
    read_on_threads,
    read_shard,
)
from pawtune.search.cluster.node_check import Node, here, nodes_that_see

FROM_SHARDS = 64  # fewer are read before a worker of another node has started
SHARDS_A_TASK = 8
MAX_TASKS = 256  # at once


def read_on_cluster(root: Path, shards: Sequence[Shard]) -> Generator[Read]:
    """A `ReadShards`: threads of the driver, and tasks on other nodes where Ray runs with some.

    Args:
        root: Folder of the images.
        shards: Files, some to each shard.

    Raises:
        UserError: A node cannot run pawtune.
    """
    if len(shards) < FROM_SHARDS or not ray.is_initialized():
        yield from read_on_threads(root, shards)
        return
    reading = _Reading(root, shards)
    try:
        yield from reading.start()
    finally:
        reading.stop()


class _Reading:
    """Shards by number, each read by a thread here or a task elsewhere, at times by both."""

    def __init__(self, root: Path, shards: Sequence[Shard]) -> None:
        self._root = root
        self._shards = [tuple(shard) for shard in shards]  # tasks take no views of lists
        self._lock = Lock()
        self._waiting = deque(range(len(shards)))
        self._elsewhere: set[int] = set()
        self._tasks: set[Any] = set()
        self._read: SimpleQueue[tuple[int, Read] | BaseException] = SimpleQueue()

    def start(self) -> Generator[Read]:
        """What was read of each shard, as it comes."""
        for _ in range(num_threads()):
            Thread(target=self._read_here, daemon=True).start()
        Thread(target=self._read_elsewhere, daemon=True).start()
        left = set(range(len(self._shards)))
        while left:
            answer = self._read.get()
            if isinstance(answer, BaseException):
                raise answer
            number, read = answer
            if number in left:
                left.remove(number)
                yield read

    def stop(self) -> None:
        """Begins nothing more, and gives up what runs elsewhere."""
        with self._lock:
            self._waiting.clear()
            self._elsewhere.clear()
            tasks = list(self._tasks)
        for task in tasks:
            with suppress(ray.exceptions.RayError):
                ray.cancel(task)

    def _read_here(self) -> None:
        try:
            while (number := self._next_here()) is not None:
                self._read.put((number, read_shard(self._root, self._shards[number])))
        except BaseException as error:
            self._read.put(error)

    def _next_here(self) -> int | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            return self._elsewhere.pop() if self._elsewhere else None

    def _read_elsewhere(self) -> None:
        """Begins on the other nodes that see the images, once these have said so."""
        try:
            seeing, _ = nodes_that_see(self._root / self._shards[0][0].path)
            driver = here().node_id
        except BaseException as error:
            self._read.put(error)
            return
        others = [node for node in seeing if node.node_id != driver and node.cpus >= 1]
        slots = [node for node in others for _ in range(2 * int(node.cpus))]
        for node in slots[:MAX_TASKS]:
            Thread(target=self._read_on, args=(node,), daemon=True).start()

    def _read_on(self, node: Node) -> None:
        try:
            while numbers := self._next_elsewhere():
                for number, read in zip(numbers, self._ask(node, numbers), strict=True):
                    self._read.put((number, self._confirmed(number, read)))
        except ray.exceptions.RayError:
            return  # the node is lost, or its workers do not start
        except BaseException as error:
            self._read.put(error)

    def _confirmed(self, number: int, read: Read) -> Read:
        """A node may see less than the driver does, which decides what is not usable."""
        usable = all(isinstance(facts, Facts) for _, facts in read)
        return read if usable else read_shard(self._root, self._shards[number])

    def _next_elsewhere(self) -> list[int]:
        with self._lock:
            count = min(SHARDS_A_TASK, len(self._waiting))
            numbers = [self._waiting.pop() for _ in range(count)]
            self._elsewhere.update(numbers)
        return numbers

    def _ask(self, node: Node, numbers: Sequence[int]) -> list[Read]:
        shards = [self._shards[number] for number in numbers]
        task = _read_shards.options(**node.options()).remote(self._root, shards)
        with self._lock:
            self._tasks.add(task)
        found: list[Read] | None = None
        try:
            found = ray.get(task)
            return found
        finally:
            with self._lock:
                self._tasks.discard(task)
                if found is None:  # back goes what no thread here has taken meanwhile
                    self._waiting.extend(self._elsewhere.intersection(numbers))
                self._elsewhere.difference_update(numbers)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _read_shards(root: Path, shards: Sequence[Shard]) -> list[Read]:
    return [read_shard(root, shard) for shard in shards]
