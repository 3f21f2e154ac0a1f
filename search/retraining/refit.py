"""A trial's specification trained on the training and validation images together.

More images make a better model, but none are left to choose an epoch on or to score it with: it
runs for the number of epochs that was best on validation, its last epoch is kept, and what it is
worth only the test split can say.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pawtune.models.spec import TrialSpec
from pawtune.search.progress.reporter import Reporter, default_reporter
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import refit_folder
from pawtune.search.retraining.setup import prepare_retraining
from pawtune.search.retraining.training import Training, follow_one
from pawtune.search.shared_work.pixels import PixelRefs
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.object_store_sync import hold_run
from pawtune.search.storage.records import ProposedTrial
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, write_json
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.trial import begin_session, build_trial, describe_training

RECORD = "refit.json"
KEPT = ("loss", "accuracy", "learning_rate", "seconds", "images_per_second")


@dataclass(frozen=True)
class Refit:
    """What was trained.

    Attributes:
        epochs: All of them; the number that was best on validation.
        train_images: Number of images in the training split.
        validation_images: Number of images in the validation split, trained on too.
        loss: On the images trained on, in the last epoch.
        accuracy: On the images trained on, in the last epoch.
    """

    trial_id: str
    name: str
    epochs: int
    train_images: int
    validation_images: int
    loss: float
    accuracy: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `refit.json`."""
        return asdict(self)


def refit_trial(
    run: RunFolder,
    row: Row,
    *,
    data: str | None = None,
    address: str | None = None,
    reporter: Reporter | None = None,
) -> Refit:
    """Trains a trial on training and validation images and keeps it in `refit/<id>/`.

    Args:
        run: The run.
        row: The trial, with a finished epoch.
        data: Place of the images, if they have moved.
        address: A Ray cluster, or "local"; by default the search's.
        reporter: Shows progress; by default nothing is shown.

    Raises:
        UserError, DataError, ModelError: The run is held by another driver or damaged, the images
            are not those that the search saw, or training diverged.
    """
    reporter = reporter or default_reporter()
    started = time.monotonic()
    spec = run.spec_of(row.trial_id)
    epochs = row.best_epoch or spec.train.epochs
    spec = spec.model_copy(update={"train": spec.train.over(epochs)})
    folder = refit_folder(run, row.trial_id)
    with hold_run(run, reporter.say), tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        setup = prepare_retraining(run, [spec], reporter=reporter, data=data, address=address)
        both = replace(setup, work=with_validation(setup.work))
        training = Training(spec, TrialFolder(Path(scratch) / "trial"), trainer=train_whole)
        try:
            last = follow_one(both, training, f"refit {row.name} (epochs)", reporter)
        finally:
            reporter.close()
        refit = Refit(
            trial_id=row.trial_id,
            name=row.name,
            epochs=epochs,
            train_images=len(setup.work.train_labels),
            validation_images=len(setup.work.val_labels),
            loss=last.metrics["loss"],
            accuracy=last.metrics["accuracy"],
            seconds=round(time.monotonic() - started, 3),
        )
        (folder.root / RECORD).unlink(missing_ok=True)
        shutil.copytree(training.folder.root, folder.root, dirs_exist_ok=True)
        folder.write_proposal(ProposedTrial(spec))
        # Last: where it is, the refit is whole.
        write_json(folder.root / RECORD, refit.as_dict())
    run.keep_new()
    return refit


def with_validation(work: SharedWork) -> SharedWork:
    """The shared work of a search in which the validation images are trained on too.

    One image stands in for the validation split, which training must score.
    """
    return replace(
        work,
        train_labels=np.concatenate([work.train_labels, work.val_labels]),
        val_labels=work.val_labels[:1],
        pixels={
            size: PixelRefs(refs.both, refs.validation.part(0, 1))
            for size, refs in work.pixels.items()
        },
        features=work.features and replace(work.features, whole=True),
    )


def train_whole(spec: TrialSpec, folder: TrialFolder, work: SharedWork) -> Iterator[TrialReport]:
    """Trains all epochs in a folder and keeps the last.

    Yields:
        An epoch's report, with metrics on the images trained on.
    """
    policy = begin_session(spec)
    trial = build_trial(spec, work)
    folder.best.mkdir(parents=True)
    rows = []
    for result in trial.train(1):
        metrics = {name: result.metrics[name] for name in KEPT}
        report = TrialReport(result.epoch, metrics, done=result.epoch == spec.train.epochs)
        rows.append(report.row)
        folder.write_metrics(rows)
        if report.done:
            folder.write_facts(describe_training(trial, policy, work))
            trial.core.save_weights(folder.best_weights)
        yield report
