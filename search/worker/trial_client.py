"""A trial's records on its worker: handed through Ray to the process that writes the run folder."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawtune.search.cluster.task_result import result
from pawtune.search.objective import Objective
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.retry import StorageError
from pawtune.search.storage.run_writer import LostWorkerError, RunWriter, TakenOverError
from pawtune.search.storage.trial_writer import KeptEpoch, KeptTrial

END_S = 30.0


def start_writer(trials_dir: Path, objective: Objective) -> Any:
    """The process that writes a folder of trials, as an actor on this node.

    Ray may not start it again: then Ray's memory monitor would kill it before any worker where a
    trial takes the memory of this node. A search whose writer is gone ends, and can be resumed.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(RunWriter).options(num_cpus=0, scheduling_strategy=here)
    return actor.remote(trials_dir, objective, os.getpid())


def end_writer(writer: Any) -> None:
    """Ends it once what it has been handed is written; what comes later is refused."""
    with suppress(ray.exceptions.RayError):  # it is gone already, or its storage hangs
        ray.get(writer.end.remote(), timeout=END_S)
    ray.kill(writer)


class TrialClient:
    """Keeps a trial as `TrialWriter` does, in the process that writes the run folder.

    Each method returns when what it was given is written. All raise what `RunWriter` raises.

    Args:
        writer: Actor from `start_writer`.
        trial_id: The trial.

    Attributes:
        kept: State that the trial continued from when this worker took it.
    """

    def __init__(self, writer: Any, trial_id: str) -> None:
        self._writer = writer
        self._claim = ""
        self.kept = KeptTrial()
        self.trial_id = trial_id

    def begin(self) -> KeptTrial:
        """Takes the trial; what it continues from."""
        self._claim, self.kept = _answer(self._writer.begin.remote(self.trial_id))
        return self.kept

    def describe(self, facts: TrialFacts) -> None:
        """Keeps what this worker found out."""
        self._write("describe", facts)

    def keep(self, epoch: KeptEpoch) -> None:
        """Keeps an epoch."""
        self._write("keep", epoch)

    def fail(self, account: str) -> None:
        """Keeps what broke the trial, a traceback."""
        self._write("fail", account)

    def _write(self, what: str, record: Any) -> None:
        _answer(self._writer.write.remote(self.trial_id, self._claim, what, record))


def _answer(call: Any) -> Any:
    """What the writer answers; its own exceptions as it raised them.

    Raises:
        StorageError: The writer is dead, too.
    """
    try:
        return result(call, StorageError, TakenOverError, LostWorkerError)
    except ray.exceptions.RayActorError as error:
        reason = " ".join(str(error).split())[:300]
        raise StorageError(f"the process that writes the run folder is gone: {reason}") from error
