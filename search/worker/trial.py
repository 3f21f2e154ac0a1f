"""A trial on a worker: build what the spec says, fit one epoch at a time, report, keep the best.

A worker process is reused for trial after trial, so everything that one trial could leave behind
is reset: Keras' session, seeds and precision policy. The worker hands over what is to be kept of an
epoch before it reports it; what was reported is on disk.
"""

import gc
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune

from pawtune.models.cpu_info import cpu_model
from pawtune.models.errors import ModelError
from pawtune.models.families.family import BuiltTrial
from pawtune.models.families.own import add_families
from pawtune.models.families.table import family_of
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import claim_process, place
from pawtune.search.config.own_metric import measure
from pawtune.search.objective import MEASURED
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.retry import StorageError
from pawtune.search.storage.run_folder import write_bytes
from pawtune.search.storage.run_writer import TakenOverError
from pawtune.search.storage.trial_writer import KeptTrial
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.costs import measure_costs
from pawtune.search.worker.epoch_keeper import EpochKeeper, Records
from pawtune.search.worker.trial_client import TrialClient
from pawtune.search.worker.trial_data import SharedArrays

MAX_SOLVED_WEIGHTS = 5_000_000  # 20 MB

if TYPE_CHECKING:
    from pawtune.models.training.epoch_metrics import EpochResult


class TrialWorker(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """Tune's view of a trial: one `step` is one epoch; an error ends the trial, not the worker."""

    def setup(self, config: dict[str, Any], work: SharedWork) -> None:
        """Called once a process. Nothing that can fail is done here: Tune would retry it."""
        self._work = work
        self._epochs: Iterator[TrialReport] | None = None
        self._failed_unexpectedly = False

    def step(self) -> dict[str, Any]:
        """Trains one epoch.

        Returns:
            A `TrialReport` as Tune carries it.
        """
        if self._failed_unexpectedly:
            # Tune starts the trial elsewhere: it has not begun, so nothing is lost. Not sooner: a
            # process that ends while it is handed a trial takes the trial with it.
            ray.actor.exit_actor()
        try:
            if self._epochs is None:
                self._trial = TrialClient(self._work.writer, self.config["trial_id"])
                self._epochs = self._begin(self._trial)
            return next(self._epochs).to_result()
        except TakenOverError:
            ray.actor.exit_actor()
            raise
        except StorageError as error:
            return TrialReport(storage=str(error), done=True).to_result()
        except Exception as error:  # whatever a trial does, the search continues
            # A loss that diverged says nothing against the process; an unknown error may.
            self._failed_unexpectedly = not isinstance(error, ModelError)
            with suppress(StorageError, TakenOverError, ray.exceptions.RayError):
                self._trial.fail(traceback.format_exc())
            reason = " ".join(str(error).split())[:500]
            failure = f"{type(error).__name__}: {reason}"
            return TrialReport(failure=failure, done=True).to_result()

    def _begin(self, trial: TrialClient) -> Iterator[TrialReport]:
        claim_process(self._work.threads)
        add_families(self._work.own_families)
        spec = TrialSpec.model_validate(self.config["spec"])
        return run_trial(spec, trial, self._work)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self._epochs = None
        return True

    def cleanup(self) -> None:
        """Ends the epoch loop so that its resources go."""
        self._epochs = None

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: trials keep their own state in the run folder."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, for the same reason."""


def run_trial(spec: TrialSpec, records: Records, work: SharedWork) -> Iterator[TrialReport]:
    """Trains one trial, from its last kept state where there is one.

    Args:
        spec: The trial.
        records: Keeper of its state, best epoch and metrics.
        work: The shared pixels and labels.

    Yields:
        One report an epoch, after everything it says is on disk.
    """
    from pawtune.models.training.training_state import save_state

    kept = records.begin()
    costs = _measured(spec, work, kept.costs)
    policy = begin_session(spec)  # after it: what is built there leaves nothing behind
    trial = build_trial(spec, work)
    rows = [dict(row) for row in kept.rows]
    if rows and not _restored(trial, kept):  # damaged: begin again, with new weights
        trial, rows = build_trial(spec, work), []
    core = trial.core
    facts = describe_training(trial, policy, work).model_copy(update=costs)
    records.describe(facts)
    keep_state = partial(save_state, core, trial.optimizer)
    keeper = EpochKeeper(records, work.objective, core, keep_state, rows)
    for trained in trial.train(len(rows) + 1):
        result = _with_own_metric(trained, work)
        done = result.epoch >= spec.train.epochs
        report = keeper.keep(result, done, facts.num_weights)
        yield replace(report, latency_ms=facts.latency_ms, size_mb=facts.size_mb)


def _with_own_metric(result: "EpochResult", work: SharedWork) -> "EpochResult":
    """An epoch with the user's own metric, where the search has one."""
    if work.own_metric is None:
        return result
    name = work.objective.metric
    value = measure(work.own_metric, name, work.val_labels, result.val_probabilities)
    return replace(result, metrics={**result.metrics, name: value})


def _measured(spec: TrialSpec, work: SharedWork, known: Mapping[str, float]) -> Mapping[str, float]:
    """What the search asks of a complete model; of a trial that continues, as it was measured."""
    asked = [name for name in work.objective.costs if name in MEASURED]
    if all(name in known for name in asked):
        return {name: known[name] for name in asked}
    begin_session(spec)
    add_families(work.own_families)
    return measure_costs(spec.model, SharedArrays(work), work.resizing)


def begin_session(spec: TrialSpec) -> str:
    """Resets what an earlier trial left in this process; returns the precision to train in."""
    # Imported here: the driver, which imports this module, needs no TensorFlow.
    import keras

    from pawtune.models import precision

    keras.utils.clear_session(free_memory=False)
    _collect_built()
    policy = precision.resolve_precision(spec.train.precision, has_gpu=precision.has_gpu())
    precision.set_precision(policy)
    keras.utils.set_random_seed(spec.train.seed)
    return policy


class _Built:
    """What this process has built since the last collection of garbage."""

    net = False
    solved_weights = 0


def _collect_built() -> None:
    """Frees what earlier trials built: models and their compiled steps lie in reference cycles.

    A collection takes 0.1 s, as long as a solved head in all: small ones are left to Python.
    """
    if not gc.get_freeze_count():
        gc.freeze()  # what was imported: a collection would take most of a second
    if _Built.net or _Built.solved_weights > MAX_SOLVED_WEIGHTS:
        gc.collect()
        _Built.net, _Built.solved_weights = False, 0


def build_trial(spec: TrialSpec, work: SharedWork) -> BuiltTrial:
    """The trial with new weights, as its family builds it."""
    add_families(work.own_families)
    trial = family_of(spec.model).build(spec.model, spec.train, SharedArrays(work))
    if trial.kind == "solved":
        _Built.solved_weights += trial.core.count_params()
    else:
        _Built.net = True
    return trial


def describe_training(trial: BuiltTrial, policy: str, work: SharedWork) -> TrialFacts:
    """What a trial's `facts.json` holds: sizes, and all of the machine that decides on digits."""
    from pawtune.models import precision
    from pawtune.models.training.code_version import TRAINING_VERSION

    frozen = sum(work.backbones[backbone].num_weights for backbone in trial.backbones)
    return TrialFacts(
        num_weights=trial.core.count_params() + frozen + trial.frozen_weights,
        trainable_weights=sum(int(np.prod(w.shape)) for w in trial.core.trainable_weights),
        precision=policy,
        training=trial.kind,
        code=TRAINING_VERSION,
        **place(),
        device="gpu" if precision.has_gpu() else "cpu",
        cpu=cpu_model(),
        threads=work.threads,
    )


def _restored(trial: BuiltTrial, kept: KeptTrial) -> bool:
    """Whether a trial is again as it was after its last state."""
    from pawtune.models.training.training_state import restore_state

    with tempfile.TemporaryDirectory(prefix="pawtune-") as folder:
        for name, content in kept.state.items():
            write_bytes(Path(folder) / name, content.data)
        try:
            return restore_state(trial.core, trial.optimizer, Path(folder)) == len(kept.rows)
        except ModelError:
            return False
