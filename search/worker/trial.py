"""A trial on a worker: build what the spec says, fit one epoch at a time, report, keep the best.

A worker process is reused for trial after trial, so everything that one trial could leave behind
is reset: Keras' session, seeds and precision policy. The worker writes its own folder before it
reports an epoch; what was reported is on disk.
"""

import gc
import platform
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import ray
from ray import tune

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.sources.object_store import StoreError
from pawtune.models.cpu_info import cpu_model
from pawtune.models.errors import ModelError
from pawtune.models.families.family import BuiltTrial
from pawtune.models.families.own import add_families
from pawtune.models.families.table import family_of
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import claim_process, place
from pawtune.search.objective import Objective
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.attempts import TakenOverError, begin_attempt
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.retry import StorageError, must_exist, retry_storage
from pawtune.search.storage.run_folder import TrialFolder, write_text
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.epoch_keeper import EpochKeeper, restore_best
from pawtune.search.worker.trial_copy import TrialCopy
from pawtune.search.worker.trial_data import SharedArrays

# To a node where a trial cannot even begin: the look before the first trial has not met those that
# came later.
MUST_SEE = (
    "nodes that join a cluster later must see the run folder as well: mount it there at the same "
    "path, or keep runs in an object store, --runs-dir s3://BUCKET/runs"
)


class TrialWorker(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """Tune's view of a trial: one `step` is one epoch; an error ends the trial, not the worker."""

    def setup(self, config: dict[str, Any], work: SharedWork) -> None:
        """Called once a process. Nothing that can fail is done here: Tune would retry it."""
        self._work = work
        self._epochs: Iterator[TrialReport] | None = None
        self._claim = ""
        self._copy: TrialCopy | None = None
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
        copy = self._copy = self._copy or TrialCopy(self._work.run_root, self.config["trial_id"])
        try:
            if self._epochs is None:
                copy.pull()
                self._claim = begin_attempt(copy.folder)
                copy.push()
                self._epochs = self._begin(copy.folder)
            report = next(self._epochs)
            copy.push(last=report.done)
            return report.to_result()
        except TakenOverError:
            ray.actor.exit_actor()
            raise
        except (StorageError, StoreError) as error:
            place = f"on {platform.node()}, {ray.util.get_node_ip_address()}"
            unseen = self._epochs is None and isinstance(error.__cause__, FileNotFoundError)
            remedy = f"; {MUST_SEE}" if unseen else ""
            return TrialReport(storage=f"{error} ({place}){remedy}", done=True).to_result()
        except Exception as error:  # whatever a trial does, the search goes on
            # A loss that diverged says nothing against the process; an unknown error may.
            self._failed_unexpectedly = not isinstance(error, ModelError)
            text = traceback.format_exc()
            with suppress(StorageError, DataError):
                retry_storage(lambda: write_text(copy.folder.error_file, text))
                copy.push(last=True)
            reason = " ".join(str(error).split())[:500]
            failure = f"{type(error).__name__}: {reason}"
            return TrialReport(failure=failure, done=True).to_result()

    def _begin(self, folder: TrialFolder) -> Iterator[TrialReport]:
        claim_process(self._work.threads)
        add_families(self._work.own_families)
        spec = TrialSpec.model_validate(self.config["spec"])
        return run_trial(spec, folder, self._work, self._claim)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self._let_go()
        return True

    def cleanup(self) -> None:
        """Ends the epoch loop so that its resources go."""
        self._let_go()

    def _let_go(self) -> None:
        """Ends a trial that the search has stopped."""
        self._epochs = None
        if self._copy is not None:
            with suppress(TakenOverError, DataError):
                self._copy.push(last=True)
            self._copy = None

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: trials keep their own state in the run folder."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, for the same reason."""


def run_trial(
    spec: TrialSpec, folder: TrialFolder, work: SharedWork, claim: str | None = None
) -> Iterator[TrialReport]:
    """Trains one trial, from its last kept state where there is one.

    Args:
        spec: The trial.
        folder: Where its state, best epoch and metrics go.
        work: The shared pixels and labels.
        claim: As `begin_attempt` gave it; None: nobody else can have the trial.

    Yields:
        One report an epoch, after everything it says is on disk.
    """
    from pawtune.models.training.training_state import save_state

    if claim is None:
        folder.root.mkdir(parents=True, exist_ok=True)
    policy = begin_session(spec)
    trial = build_trial(spec, work)
    objective = Objective(work.metric)
    rows = retry_storage(lambda: _continue(trial, folder, objective))
    if rows is None:  # what it should continue from is damaged: begin again, with new weights
        folder.drop_last()
        trial, rows = build_trial(spec, work), []
    core = trial.core
    facts = describe_training(trial, policy, work)
    retry_storage(lambda: folder.write_facts(facts))
    keep_state = partial(save_state, core, trial.optimizer, folder=folder.last)
    keeper = EpochKeeper(folder, objective, core, keep_state, rows, claim)
    for result in trial.train(len(rows) + 1):
        done = result.epoch >= spec.train.epochs
        yield keeper.keep(result, done, facts.num_weights)


def begin_session(spec: TrialSpec) -> str:
    """Resets what an earlier trial left in this process; returns the precision to train in."""
    # Imported here: the driver, which imports this module, needs no TensorFlow.
    import keras

    from pawtune.models import precision

    keras.utils.clear_session(free_memory=False)
    # Models and their compiled steps lie in reference cycles. What was imported is set apart once:
    # a collection then takes milliseconds instead of most of a second.
    if not gc.get_freeze_count():
        gc.freeze()
    gc.collect()
    policy = precision.resolve_precision(spec.train.precision, has_gpu=precision.has_gpu())
    precision.set_precision(policy)
    keras.utils.set_random_seed(spec.train.seed)
    return policy


def build_trial(spec: TrialSpec, work: SharedWork) -> BuiltTrial:
    """The trial with new weights, as its family builds it."""
    add_families(work.own_families)
    return family_of(spec.model).build(spec.model, spec.train, SharedArrays(work))


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


def _continue(
    trial: BuiltTrial, folder: TrialFolder, objective: Objective
) -> list[dict[str, float]] | None:
    """Restores a trial's last state; its finished epochs, or None where the state is damaged."""
    from pawtune.models.training.training_state import restore_state

    must_exist(folder.root)  # else nothing found there would mean that nothing was kept
    try:
        last = restore_state(trial.core, trial.optimizer, folder.last) or 0
    except ModelError:
        must_exist(folder.last)
        return None
    rows = [row for row in folder.read_metrics() if row["epoch"] <= last]
    if len(rows) != last:
        must_exist(folder.root)
        return None
    if rows:
        restore_best(folder, int(objective.best(rows)["epoch"]))
    return rows
