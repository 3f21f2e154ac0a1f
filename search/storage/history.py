"""The trials of earlier sessions, read from the run folder for the next session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pawtune.models.spec import TrialSpec
from pawtune.search.objective import Objective
from pawtune.search.storage.records import Status
from pawtune.search.storage.run_folder import RunFolder


@dataclass(frozen=True)
class PastTrial:
    """A trial from an earlier session of the search.

    Attributes:
        values: The running best of the objective, by epoch.
        over: Whether it has ended; else it continues from its last kept state.
        costs: Costs of its complete model by name, as far as they are known.
    """

    trial_id: str
    spec: TrialSpec
    baseline: bool
    status: Status
    values: Mapping[int, float]
    over: bool
    costs: Mapping[str, float] = field(default_factory=dict)


def read_history(run: RunFolder, objective: Objective) -> list[PastTrial]:
    """All trials of a run, in the order of proposal.

    Raises:
        UserError: A trial's files are damaged.
    """
    past = []
    for trial in run.trials():
        status = trial.read_status()
        proposal = trial.read_proposal()
        epochs = trial.read_metrics()
        values = running_best([objective.value(row) for row in epochs], objective)
        all_run = len(epochs) >= proposal.spec.train.epochs
        past.append(
            PastTrial(
                trial_id=trial.trial_id,
                spec=proposal.spec,
                baseline=proposal.baseline,
                status="completed" if all_run else status.status,
                values=dict(enumerate(values, start=1)),
                over=all_run or status.is_over,
                costs=trial.read_facts().costs(),
            )
        )
    return past


def running_best(values: Sequence[float], objective: Objective) -> list[float]:
    """The best value up to each epoch."""
    return list(accumulate(values, max if objective.mode == "max" else min))


def first_start(run: RunFolder) -> float | None:
    """When a worker took the first of the trials that say so, in Unix seconds."""
    starts = (trial.read_status().started for trial in run.trials())
    return min((start for start in starts if start), default=None)


def drop_states_of_ended(run: RunFolder) -> None:
    """Removes states to continue from that no trial needs any more.

    A worker whose driver was killed may still write one, after its trial has ended elsewhere.
    """
    for trial in run.trials():
        if trial.last.exists() and trial.read_status().is_over:
            trial.drop_last()


def mark_ended(run: RunFolder, past: Sequence[PastTrial]) -> list[str]:
    """Marks as ended the trials whose driver died before it could say so.

    Returns:
        Their ids.
    """
    settled = []
    for trial in past:
        folder = run.trial(trial.trial_id)
        status = folder.read_status()
        if trial.over and status.status != trial.status:
            seconds = round(folder.seconds_so_far(), 3)
            folder.write_status(trial.status, reason=None, started=status.started, seconds=seconds)
            folder.drop_last()
            settled.append(trial.trial_id)
    return settled


def remove_partial_files(run: RunFolder) -> None:
    """Removes half-written files of processes that were killed: `.<name>.<letters>` beside one."""
    for folder in (run.root, *(trial.root for trial in run.trials())):
        for file in folder.glob(".*.*.????????"):
            if file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)


def forget_failures(run: RunFolder) -> None:
    """Makes failed trials new again: they will run from their first epoch."""
    for trial in run.trials():
        if trial.read_status().status == "failed":
            for file in (trial.metrics_file, trial.error_file):
                file.unlink(missing_ok=True)
            trial.drop_last()
            trial.write_status("pending")
