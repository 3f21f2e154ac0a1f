"""Trials of a run trained again as Ray tasks: the one task behind confirm, refit and reproduce.

The worker trains in a folder of its own and streams an epoch's report as it ends, then the files
to keep; or, where trainings may be interrupted and continue, it hands each epoch to the process
that writes the run, as a search's workers do.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from pawtune.data_pipeline.errors import DataError
from pawtune.models.errors import ModelError
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import ResourcePlan, claim_process
from pawtune.search.cluster.remote_task import remote_task
from pawtune.search.cluster.task_result import result
from pawtune.search.errors import UserError
from pawtune.search.progress.reporter import Reporter
from pawtune.search.retraining.setup import RetrainingSetup
from pawtune.search.shared_work.board import end_board
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.run_folder import TrialFolder, write_bytes
from pawtune.search.storage.trial_writer import TrialWriter
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.trial import run_trial
from pawtune.search.worker.trial_client import TrialClient

POLL_S = 1.0

Trainer = Callable[[TrialSpec, TrialFolder, SharedWork], Iterator[TrialReport]]


def train_trial(spec: TrialSpec, folder: TrialFolder, work: SharedWork) -> Iterator[TrialReport]:
    """Trains a trial as a search does, in a folder that this process sees."""
    folder.root.mkdir(parents=True, exist_ok=True)
    yield from run_trial(spec, TrialWriter(folder, work.objective), work)


def train_first(
    epochs: int, spec: TrialSpec, folder: TrialFolder, work: SharedWork
) -> Iterator[TrialReport]:
    """The same, ended after some epochs of its specification, as by early stopping."""
    yield from islice(train_trial(spec, folder, work), epochs)


@dataclass(frozen=True)
class TrainedFiles:
    """The last item of a training's stream: its files by name, none where they are in place."""

    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Training:
    """A trial to train again.

    Attributes:
        spec: Specification of the training.
        folder: Place of its records and files when it has ended, laid out as a trial's folder.
        continues: Whether the shared work's writer keeps each epoch in `folder`, and the training
            continues from what an interrupted one left there; it is then trained as in a search.
        trainer: Else: trains in a folder and yields a report an epoch; must be importable.
    """

    spec: TrialSpec
    folder: TrialFolder
    continues: bool = False
    trainer: Trainer = train_trial


def train_again(
    setup: RetrainingSetup,
    trainings: Sequence[Training],
    on_epoch: Callable[[Training, TrialReport], None],
) -> Iterator[tuple[Training, Exception | None]]:
    """Trains side by side, as many at once as the plan allows; then the shared work has ended.

    Args:
        setup: Data, resources and shared work, from `prepare_retraining`.
        trainings: Trainings to run.
        on_epoch: Receives every epoch's report.

    Yields:
        Each training as it ends, its files in its folder; with its error where it failed.
    """
    task = _task_on(setup.plan)
    work = ray.put(setup.work)
    waiting = deque(trainings)
    running: dict[Any, Training] = {}
    try:
        while waiting or running:
            while waiting and len(running) < setup.plan.concurrency:
                training = waiting.popleft()
                kept_as = training.folder.trial_id if training.continues else None
                running[task.remote(training.trainer, training.spec, kept_as, work)] = training
            streams, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
            for stream in streams:
                training = running[stream]
                try:
                    report: TrialReport | TrainedFiles = result(next(stream))
                except StopIteration:
                    # Ray drops the error of a task that it had to start again.
                    del running[stream]
                    yield training, RuntimeError("its worker died, and the next one failed")
                except (ray.exceptions.RayError, UserError, DataError, ModelError) as error:
                    del running[stream]
                    yield training, error
                else:
                    if isinstance(report, TrialReport):
                        on_epoch(training, report)
                        continue
                    _place_files(training.folder, report.files)
                    del running[stream]
                    yield training, None
    finally:
        for stream in running:
            ray.cancel(stream, force=True)
        if setup.work.features is not None:
            end_board(setup.work.features.board)


def follow_one(
    setup: RetrainingSetup, training: Training, stage: str, reporter: Reporter
) -> TrialReport:
    """Trains one trial and shows its epochs; returns the last one's report.

    Raises:
        UserError, DataError, ModelError, RayError: As the training raised it.
    """
    last = TrialReport()

    def on_epoch(_: Training, report: TrialReport) -> None:
        nonlocal last
        last = report
        reporter.stage(stage, report.epoch, training.spec.train.epochs)

    for _, error in train_again(setup, [training], on_epoch):
        if error is not None:
            raise error
    return last


def _task_on(plan: ResourcePlan) -> Any:
    # Tried again where `claim_process` has left a process that another search had used.
    return remote_task(
        _train, num_cpus=plan.cpus, num_gpus=plan.gpus, num_returns="streaming", max_retries=3
    )


def _train(
    trainer: Trainer, spec: TrialSpec, kept_as: str | None, work: SharedWork
) -> Iterator[TrialReport | TrainedFiles]:
    """One training, on a worker; `kept_as` is its name for the process that writes the run.

    Yields:
        An epoch's report; at last the files to keep, by name: none where they are kept already.
    """
    claim_process(work.threads)
    # Not `yield from`: Ray sends into its generators.
    if kept_as is not None:
        for report in _train_kept(spec, TrialClient(work.writer, kept_as), work):
            yield report
        yield TrainedFiles({})
        return
    with tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        folder = TrialFolder(Path(scratch) / "trial")
        for report in trainer(spec, folder, work):
            yield report
        kept = (folder.metrics_file, folder.facts_file, folder.best_predictions)
        files = [file for file in (*kept, folder.best_weights) if file.exists()]
        yield TrainedFiles({str(f.relative_to(folder.root)): f.read_bytes() for f in files})


def _train_kept(spec: TrialSpec, records: TrialClient, work: SharedWork) -> Iterator[TrialReport]:
    """Trains a trial, from its last kept state where there is one.

    A stream's items are counted: a task that Ray starts again, and which continues from the last
    kept state, gives the epochs before it once more.
    """
    given = 0
    for report in run_trial(spec, records, work):
        for row in records.kept.rows[given : report.epoch - 1]:
            yield TrialReport.from_result(row)
        given = report.epoch
        yield report


def _place_files(folder: TrialFolder, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        write_bytes(folder.root / name, content)
