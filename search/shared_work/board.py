"""Work that trials share, made once by the trials that wait for it: an actor hands out shards.

A trial names a job (decoded pixels, features of all images under a backbone, a decomposition of
them). Whoever asks while it is not made gets a shard to compute, so the workers that need it make
it together, each with the libraries, weights and GPU that it holds anyway: no other process starts,
and nothing waits for work that no trial asked for. Results are gathered in the cache under a key of
all that changes a value, where every trial on the node reads them in place (`shared_array`).
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from filelock import FileLock, Timeout
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawtune.data_pipeline.safe_files import reserve
from pawtune.models.errors import ModelError
from pawtune.search.cluster.task_result import result
from pawtune.search.shared_work.shared_array import SharedArray, map_array, share_array

Arrays = Mapping[str, np.ndarray]

WAIT_S = 0.1  # between two questions of a worker that has nothing to do for a job
# A shard that is out for so many times the longest yet is given to another worker as well: its
# worker has died, or its machine is busy with something else.
PATIENCE = 3.0
PATIENCE_S = 20.0  # at least; the first shard of a worker also traces its graph
DESCRIPTION = "job.json"


@dataclass(frozen=True)
class Job:
    """Something to be made once.

    Attributes:
        name: Name for people: "features of MobileNetV2 at 224 px".
        folder: Folder in the cache, under a key of all that changes a value.
        rows: Number of rows of the result; with several shards, each array's first axis.
        shard_rows: Number of rows of a shard; as many as `rows`: one worker makes all of it.
        unit: Name of a row, for people.
    """

    name: str
    folder: Path
    rows: int
    shard_rows: int
    unit: str = "images"


@dataclass(frozen=True)
class Shard:
    """Rows that a worker is to make: from start to stop - 1."""

    start: int
    stop: int


@dataclass(frozen=True)
class Made:
    """A job's result, by name of the array."""

    arrays: Mapping[str, SharedArray]


@dataclass(frozen=True)
class JobProgress:
    """How far a job is."""

    name: str
    done: int
    total: int
    waits: str = ""


Answer = Shard | Made | None  # None: nothing to do yet


@dataclass
class _Progress:
    job: Job
    lock: FileLock
    pending: list[int]
    out: dict[int, float] = field(default_factory=dict)  # shard → when it was handed out
    done: set[int] = field(default_factory=set)
    longest_s: float = 0.0
    writer: "ArrayWriter | None" = None
    made: Made | None = None
    waits: str = ""


class Board:
    """The state of all jobs of a search. One process, the driver's node: `start_board`."""

    def __init__(self) -> None:
        self._jobs: dict[Path, _Progress] = {}

    def claim(self, job: Job) -> Answer:
        """What a worker that needs a job should do next.

        Returns:
            The result where it is made; a shard to compute; None: ask again in a moment.

        Raises:
            ModelError: What is in the cache is damaged.
        """
        state = self._jobs.get(job.folder) or self._begin(job)
        if state.made is not None:
            return state.made
        if not state.lock.is_locked and not self._take_over(state):
            return state.made
        if state.pending:
            start = state.pending.pop(0)
        elif (late := self._late(state)) is not None:
            start = late
        else:
            return None
        state.out[start] = time.monotonic()
        return Shard(start, min(start + job.shard_rows, job.rows))

    def submit(self, job: Job, start: int, arrays: Arrays) -> None:
        """Takes the arrays of a shard; the last one makes the result appear.

        Raises:
            OSError: The cache has no room.
        """
        state = self._jobs[job.folder]
        if start in state.done:
            return  # two workers made it, and the other was faster
        if state.writer is None:
            state.writer = ArrayWriter(job, arrays)
        state.writer.write(start, arrays)
        state.done.add(start)
        state.longest_s = max(state.longest_s, time.monotonic() - state.out.pop(start, 0.0))
        if len(state.done) == len(range(0, job.rows, job.shard_rows)):
            state.writer.finish()
            state.writer = None
            self._publish(state)

    def give_back(self, job: Job, start: int) -> None:
        """A worker could not make a shard: another may."""
        state = self._jobs[job.folder]
        if state.out.pop(start, None) is not None and start not in state.done:
            state.pending.append(start)

    def progress(self) -> list[JobProgress]:
        """All jobs so far, in the order in which they were asked for."""
        return [
            JobProgress(
                state.job.name,
                state.job.rows if state.made else self._rows_done(state),
                state.job.rows,
                state.waits,
            )
            for state in self._jobs.values()
        ]

    def _begin(self, job: Job) -> _Progress:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(job.folder.parent / f".{job.folder.name}.lock")
        state = _Progress(job, lock, list(range(0, job.rows, job.shard_rows)))
        self._jobs[job.folder] = state
        if job.folder.exists():
            self._publish(state)
        return state

    def _take_over(self, state: _Progress) -> bool:
        """Whether this search makes the job; False: it is made, or another search makes it."""
        try:
            state.lock.acquire(blocking=False)
        except Timeout:
            state.waits = "waits for another search, which is making the same"
            return False
        state.waits = ""
        if state.job.folder.exists():
            self._publish(state)
            return False
        for left in state.job.folder.parent.glob(f".{state.job.folder.name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
        return True

    def _publish(self, state: _Progress) -> None:
        folder = state.job.folder
        arrays = load_arrays(folder)
        state.made = Made(
            {name: share_array(folder / f"{name}.npy", array) for name, array in arrays.items()}
        )
        state.pending, state.out, state.waits = [], {}, ""
        if state.lock.is_locked:
            state.lock.release()

    def _late(self, state: _Progress) -> int | None:
        """The shard that is out for longest, where that is too long."""
        if not state.out:
            return None
        start = min(state.out, key=lambda shard: state.out[shard])
        patience = max(PATIENCE_S, PATIENCE * state.longest_s)
        return start if time.monotonic() - state.out[start] > patience else None

    def _rows_done(self, state: _Progress) -> int:
        step, rows = state.job.shard_rows, state.job.rows
        return sum(min(start + step, rows) - start for start in state.done)


class ArrayWriter:
    """Writes arrays shard by shard under a temporary name; they appear whole or not at all."""

    def __init__(self, job: Job, first: Arrays) -> None:
        """Takes the whole room at once.

        Args:
            job: Job that names the folder and the number of rows.
            first: A shard: its arrays' names, dtypes and shapes are those of all.

        Raises:
            OSError: There is no such room.
        """
        self._job = job
        self._partial = job.folder.parent / f".{job.folder.name}.{secrets.token_hex(4)}.partial"
        self._partial.mkdir()
        self._arrays: dict[str, np.ndarray] = {}
        try:
            for name, array in first.items():
                file = self._partial / f"{name}.npy"
                shape = array.shape if self._is_whole else (job.rows, *array.shape[1:])
                self._arrays[name] = np.lib.format.open_memmap(
                    file, mode="w+", dtype=array.dtype, shape=shape
                )
                reserve(file)
        except OSError:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise

    @property
    def _is_whole(self) -> bool:
        return self._job.shard_rows >= self._job.rows

    def write(self, start: int, arrays: Arrays) -> None:
        """Puts in a shard."""
        for name, array in arrays.items():
            target = self._arrays[name]
            rows = slice(None) if self._is_whole else slice(start, start + len(array))
            target[rows] = array

    def finish(self) -> None:
        """Makes the arrays appear in the cache."""
        for array in self._arrays.values():
            array.flush()  # type: ignore[attr-defined]  # numpy.memmap
        names = sorted(self._arrays)
        self._arrays.clear()
        description = {"name": self._job.name, "arrays": names, "rows": self._job.rows}
        (self._partial / DESCRIPTION).write_text(json.dumps(description) + "\n")
        try:
            os.replace(self._partial, self._job.folder)
        except OSError:
            # Another search was faster on a file system without locks: its key is the same.
            shutil.rmtree(self._partial, ignore_errors=True)


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a folder in the cache, memory-mapped and read-only.

    Raises:
        ModelError: They are not whole.
    """
    try:
        names = json.loads((folder / DESCRIPTION).read_text())["arrays"]
        arrays = {name: map_array(folder / f"{name}.npy") for name in names}
        os.utime(folder)  # the cache drops first what was used longest ago
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} must hold whole arrays, received {error}: delete the folder, the next "
            "search makes them again"
        ) from error
    return arrays


def start_board() -> Any:
    """The board of a search, as an actor on this node: see `end_board`."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()


def end_board(board: Any) -> None:
    """Ends its process: Tune keeps what workers were handed, and so it, until the driver ends."""
    with suppress(ray.exceptions.RayError):
        ray.kill(board)


def obtain(board: Any, job: Job, make: Callable[[int, int], Arrays]) -> dict[str, np.ndarray]:
    """A job's result, in a worker: helps to make it where it is not made yet.

    Args:
        board: Board from `start_board`.
        job: Job whose result is needed.
        make: (start, stop) → arrays of these rows, by name.

    Returns:
        Read-only arrays, in place.

    Raises:
        DataError: They were deleted, or this node has no room for a copy.
    """
    while True:
        answer = result(board.claim.remote(job), ModelError, OSError)
        if isinstance(answer, Made):
            return {name: array.open() for name, array in answer.arrays.items()}
        if answer is None:
            time.sleep(WAIT_S)
            continue
        with _given_back_on_error(board, job, answer.start):
            arrays = dict(make(answer.start, answer.stop))
            result(board.submit.remote(job, answer.start, arrays), ModelError, OSError)


@contextmanager
def _given_back_on_error(board: Any, job: Job, start: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(ray.exceptions.RayError):
            ray.get(board.give_back.remote(job, start))
        raise
