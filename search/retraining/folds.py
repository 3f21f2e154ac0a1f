"""Out-of-fold predictions by the best trial itself: trained five times, each without a fifth.

Training and validation images are dealt into five folds, duplicates and near duplicates into the
same one. For each fold the trial's specification is trained on the other four, for its best number
of epochs, and predicts the fold. Images, features and activations are those of the search; what was
found is kept in the run's folder and not computed twice.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.families.family import (
    Activations,
    Backbone,
    Bank,
    CutActivations,
    FeatureArrays,
    Images,
    Labels,
    Pixels,
    PlainFeatures,
    ViewBank,
)
from pawtune.models.families.own import add_families
from pawtune.models.families.table import family_of
from pawtune.models.features.augmented_views import ViewTable
from pawtune.models.out_of_fold.leave_out import FOLDS, deal_folds
from pawtune.models.spec import TrialSpec
from pawtune.search.errors import UserError
from pawtune.search.progress.reporter import Reporter
from pawtune.search.results.leaderboard import Row
from pawtune.search.retraining.refit import with_validation
from pawtune.search.retraining.setup import prepare_retraining
from pawtune.search.retraining.training import Training, train_again
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.run_folder import (
    RunFolder,
    TrialFolder,
    read_json,
    write_array,
    write_json,
)
from pawtune.search.storage.untrusted_files import read_array
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.trial import begin_session
from pawtune.search.worker.trial_data import SharedArrays

if TYPE_CHECKING:
    import keras

    from pawtune.models.backbones.backbone_graph import BlockEnd


def predict_by_folds(
    run: RunFolder,
    manifest: Manifest,
    row: Row,
    *,
    data: str | None,
    address: str | None,
    reporter: Reporter,
) -> NDArray[np.float32]:
    """Predicts every training and validation image by a trial that was trained without its fold.

    Args:
        run: The run.
        manifest: Its splits.
        row: The trial, with a finished epoch.
        data: Place of the images, if they have moved.
        address: A Ray cluster, or "local"; None: the search's.
        reporter: Shows progress, and the cost before it is paid.

    Returns:
        (N, C) probabilities: training images, then validation images.

    Raises:
        UserError, DataError, ModelError: Images are gone or changed, or a training failed.
    """
    spec = run.spec_of(row.trial_id)
    epochs = row.best_epoch or spec.train.epochs
    spec = spec.model_copy(update={"train": spec.train.over(epochs)})
    labels = np.concatenate([manifest.labels("train"), manifest.labels("validation")])
    shape = (len(labels), len(manifest.class_names))
    about = {
        "fingerprint": manifest.fingerprint,
        "folds": FOLDS,
        "spec": spec.model_dump(mode="json"),
    }
    record = run.audit_dir / f"folds-{row.trial_id}.json"
    array = record.with_suffix(".npy")
    if record.exists() and read_json(record) == about:
        return _kept(array, shape)
    entries = (*manifest.split("train"), *manifest.split("validation"))
    groups = np.unique([entry.group for entry in entries], return_inverse=True)[1]
    folds = deal_folds(labels, groups.astype(np.int64))
    reporter.say(f"training {row.name} {FOLDS} times, each without a fifth of the images: "
                 f"about {folds_cost(row)}")  # fmt: skip
    found = _train_folds(run, spec, folds, shape, data, address, reporter)
    write_array(array, found)
    write_json(record, about)
    run.keep_new()
    return found


def folds_cost(row: Row) -> str:
    """How long the folds of a trial take on the workers of its search, one after the other."""
    share = (row.best_epoch or row.epochs) / max(1, row.epochs)
    seconds = FOLDS * share * (row.seconds or 0)
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"


def _kept(array: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    try:
        return read_array(array, shape)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{array} must hold predictions of {shape[0]} images, received {error}; delete it and "
            f"{array.with_suffix('.json').name}, `pawtune audit --retrain` makes them again"
        ) from error


def _train_folds(
    run: RunFolder,
    spec: TrialSpec,
    folds: NDArray[np.integer[Any]],
    shape: tuple[int, int],
    data: str | None,
    address: str | None,
    reporter: Reporter,
) -> NDArray[np.float32]:
    numbers = [int(fold) for fold in np.unique(folds)]
    found = np.empty(shape, np.float32)
    with tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        setup = prepare_retraining(run, [spec], reporter=reporter, data=data, address=address)
        whole = replace(setup, work=with_validation(setup.work))
        trainings = {
            number: Training(
                spec,
                TrialFolder(Path(scratch) / str(number)),
                trainer=partial(train_without, left_out=folds == number),
            )
            for number in numbers
        }
        epochs = dict.fromkeys((each.folder.root for each in trainings.values()), 0)

        def on_epoch(training: Training, report: TrialReport) -> None:
            epochs[training.folder.root] = report.epoch
            total = len(numbers) * spec.train.epochs
            reporter.stage("folds (epochs)", sum(epochs.values()), total)

        try:
            for _, error in train_again(whole, list(trainings.values()), on_epoch):
                if error is not None:
                    raise error
        finally:
            reporter.close()
        for number, training in trainings.items():
            out = folds == number
            found[out] = read_array(training.folder.best_predictions, (int(out.sum()), shape[1]))
    return found


def train_without(
    spec: TrialSpec, folder: TrialFolder, work: SharedWork, *, left_out: NDArray[np.bool_]
) -> Iterator[TrialReport]:
    """Trains all epochs without some images and keeps the last epoch's predictions of these.

    Args:
        spec: The trial.
        folder: Folder for the predictions.
        work: Shared work whose training images are all that are known, see `with_validation`.
        left_out: (N,) which of them are predicted instead.

    Yields:
        An epoch's report.
    """
    begin_session(spec)
    add_families(work.own_families)
    arrays = FoldArrays(SharedArrays(work), left_out)
    trial = family_of(spec.model).build(spec.model, spec.train, arrays)
    for result in trial.train(1):
        done = result.epoch == spec.train.epochs
        if done:
            write_array(folder.best_predictions, result.val_probabilities)
        yield TrialReport(result.epoch, result.metrics, done=done)


@dataclass(frozen=True)
class FoldArrays:
    """A `TrialData` whose validation images are a part of another one's training images.

    Attributes:
        whole: The other.
        left_out: (N,) which of its training images validate here.
    """

    whole: SharedArrays
    left_out: NDArray[np.bool_]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.whole.num_classes

    @property
    def train_labels(self) -> Labels:
        """(N,) class indices of the training images."""
        return self.whole.train_labels[~self.left_out]

    @property
    def val_labels(self) -> Labels:
        """(M,) class indices of the images left out."""
        return self.whole.train_labels[self.left_out]

    @property
    def bank_views(self) -> int:
        """Views of an image in the feature banks; 0 where there are none."""
        return self.whole.bank_views

    def pixels(self, request: Pixels) -> tuple[Images, Images]:
        """Training images (N, S, S, 3) and those left out (M, S, S, 3)."""
        images, _ = self.whole.pixels(request)
        return images[~self.left_out], images[self.left_out]

    def bank(self, request: ViewBank) -> Bank:
        """The training images' views; of the images left out, the first view: the plain image."""
        given = self.whole.bank(request)
        table = ViewTable(given.table.angles[~self.left_out], given.table.rings)
        return Bank(table, given.train[~self.left_out], given.train[self.left_out, 0])

    def features(self, request: PlainFeatures) -> tuple[FeatureArrays, FeatureArrays]:
        """Features of the training images and of those left out."""
        found, _ = self.whole.features(request)
        return (
            {name: array[~self.left_out] for name, array in found.items()},
            {name: array[self.left_out] for name, array in found.items()},
        )

    def derived(
        self, request: PlainFeatures, what: str, make: Callable[[], FeatureArrays]
    ) -> FeatureArrays:
        """Computed for this fold alone."""
        return make()

    def block_ends(self, request: PlainFeatures) -> Sequence["BlockEnd"]:
        """Ends of the backbone's blocks, from bottom to top."""
        return self.whole.block_ends(request)

    def activations(self, request: Activations, cut: "BlockEnd") -> CutActivations:
        """Activations at a cut: the whole's, by row."""
        given = self.whole.activations(request, cut)
        kept, out = np.flatnonzero(~self.left_out), np.flatnonzero(self.left_out)
        return CutActivations(
            given.kind,
            lambda images, rounds: given.source(kept[images], rounds),
            given.source(out, np.zeros(len(out), np.int64)),
        )

    def load_backbone(self, request: Backbone) -> "keras.Model":
        """A frozen backbone."""
        return self.whole.load_backbone(request)
