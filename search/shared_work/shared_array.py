"""Arrays that a search's workers share: files in the cache, mapped into the memory of each.

The driver's node has the file. A worker there maps it; a worker on another node maps a copy in that
node's cache, which the first of them fetches in shards, each an object of Ray's of its own. So no
process and no object store holds an array whole: what is read often stays in the system's page
cache, once for all workers of a node, and what does not fit is read from the disk again.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawtune.data_pipeline.cache import EntryHold, cache_dir, cache_limit, shrink_cache
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.file_lock import build_lock
from pawtune.data_pipeline.safe_files import reserve

SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CachedFile:
    """A .npy file in the cache of the driver's node.

    Attributes:
        file: On that node.
        node: Ray's id of the node.
        hold: Keeps the cache from dropping the file while the search runs.
    """

    file: Path
    node: str
    hold: EntryHold | None = field(default=None, compare=False, repr=False)

    def open(self) -> np.ndarray:
        """The array, memory-mapped and read-only.

        Raises:
            DataError: The file is gone, or this node's cache has no room for a copy.
        """
        if ray.get_runtime_context().get_node_id() != self.node:
            return map_array(self._copy())
        try:
            return map_array(self.file)
        except FileNotFoundError:
            raise DataError(
                f"{self.file} must stay while a search uses it, and was deleted: stop the search "
                "and continue it with `pawtune resume`, which makes it again"
            ) from None

    def _copy(self) -> Path:
        """The file in the cache of this node, which is not the driver's."""
        kind, key, name = self.file.parts[-3:]
        same = cache_dir() / kind / key / name
        if same.exists():  # a cache that both nodes see
            return same
        copy = cache_dir() / "copies" / f"{kind}-{key}-{self.file.stem}" / name
        with build_lock(copy.parent):
            if not copy.exists():
                shrink_cache(cache_dir(), cache_limit())
                try:
                    self._fetch(copy)
                except OSError as error:
                    raise DataError(
                        f"the cache of {os.uname().nodename} must have room for a copy of {kind}, "
                        f"received: {error}; make room, or start Ray there with XDG_CACHE_HOME set "
                        "to a folder that has some"
                    ) from error
        os.utime(copy.parent)  # the cache drops first what was used longest ago
        return copy

    def _fetch(self, copy: Path) -> None:
        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        describe, read = (
            task.options(num_cpus=0, scheduling_strategy=there) for task in (_describe, _read)
        )
        shape, dtype = ray.get(describe.remote(self.file))
        partial = copy.parent.with_name(f".{copy.parent.name}.{secrets.token_hex(4)}.partial")
        partial.mkdir()
        try:
            file = partial / copy.name
            array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
            reserve(file)
            flat = array.reshape(-1)
            for start, stop in shards(flat.size, flat.itemsize):
                flat[start:stop] = ray.get(read.remote(self.file, start, stop))
            array.flush()
            os.replace(partial, copy.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class SharedArray:
    """An array, or some of its rows; read by `open` in any process of the cluster.

    Attributes:
        place: File that it lies in, or Ray's object store where the disk has no room.
        start: First row.
        stop: Row after the last; None: all that follow.
    """

    place: "CachedFile | ray.ObjectRef[Any]"
    start: int = 0
    stop: int | None = None

    def open(self) -> np.ndarray:
        """The rows, read-only and in place.

        Raises:
            DataError: They are gone, or this node has no room for a copy.
        """
        whole = self.place.open() if isinstance(self.place, CachedFile) else ray.get(self.place)
        return whole if (self.start, self.stop) == (0, None) else whole[self.start : self.stop]

    def part(self, start: int, stop: int | None = None) -> Self:
        """Some of its rows, counted from its first."""
        end = self.stop if stop is None else self.start + stop
        return replace(self, start=self.start + start, stop=end)


def share_array(file: Path, array: np.ndarray) -> SharedArray:
    """Shares an array of the driver's cache.

    Args:
        file: File that it lies in, in a folder of its own or with others of one key.
        array: The open file: where somebody has just deleted that, Ray's object store holds it.
    """
    try:
        hold = EntryHold(file.parent)
        file.stat()
    except OSError:
        return SharedArray(ray.put(np.asarray(array)))
    node = ray.get_runtime_context().get_node_id()
    return SharedArray(CachedFile(file, node, hold))


def map_array(file: Path) -> np.ndarray:
    """An array of a .npy file, memory-mapped and read-only."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def shards(count: int, item_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of parts of `count` numbers, of SHARD_BYTES at most.

    >>> [*shards(20_000_000, 8)]
    [(0, 8388608), (8388608, 16777216), (16777216, 20000000)]
    """
    step = max(1, SHARD_BYTES // item_bytes)
    return ((start, min(start + step, count)) for start in range(0, count, step))


@ray.remote  # type: ignore[untyped-decorator]
def _describe(file: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    array = map_array(file)
    return array.shape, array.dtype


@ray.remote  # type: ignore[untyped-decorator]
def _read(file: Path, start: int, stop: int) -> np.ndarray:
    return np.array(map_array(file).reshape(-1)[start:stop])
