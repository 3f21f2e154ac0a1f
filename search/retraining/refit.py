"""A trial's specification trained on the training and validation images together.

More images make a better model, but none are left to choose an epoch on or to score it with: it
runs for the number of epochs that was best on validation, its last epoch is kept, and what it is
worth only the test split can say.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.models.features.augmented_views import ViewTable
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import claim_process
from pawtune.search.cluster.task_result import result
from pawtune.search.progress.reporter import Reporter
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import refit_folder
from pawtune.search.retraining.setup import (
    RetrainingSetup,
    open_workshop,
    place_files,
    small_files,
    task_options,
)
from pawtune.search.shared_work.feature_banks import POOLINGS, BankRefs
from pawtune.search.shared_work.pixels import PixelRefs, PixelStore, SharedWork, prepare_banks
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, write_json
from pawtune.search.storage.run_lock import RunLock
from pawtune.search.storage.trial_spec import load_spec
from pawtune.search.worker.trial import begin_session, build_trial, describe_training

RECORD = "refit.json"
KEPT = ("loss", "accuracy", "learning_rate", "seconds", "images_per_second")


@dataclass(frozen=True)
class Refit:
    """What was trained.

    Attributes:
        epochs: All of them; the number that was best on validation.
        train_images: Of the training split.
        validation_images: Of the validation split, trained on too.
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
        data: Where the images are, if they have moved.
        address: A Ray cluster, or "local"; by default the search's.
        reporter: Shows progress; by default nothing is shown.

    Raises:
        UserError, DataError, ModelError: The run is held by another driver or damaged, the images
            are not those that the search saw, or training diverged.
    """
    reporter = reporter or Reporter(quiet=True)
    started = time.monotonic()
    spec = load_spec(run, row.trial_id)
    epochs = row.best_epoch or spec.train.epochs
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": epochs})})
    with RunLock(run):
        shop = open_workshop(run, [spec], reporter=reporter, data=data, address=address)
        work = with_validation(shop, reporter)
        folder = refit_folder(run, row.trial_id)
        task = _train_whole.options(**task_options(shop.plan)).remote(spec, work)
        try:
            last, files = _follow(task, row.name, epochs, reporter)
        finally:
            reporter.close()
        refit = Refit(
            trial_id=row.trial_id,
            name=row.name,
            epochs=epochs,
            train_images=len(shop.work.train_labels),
            validation_images=len(shop.work.val_labels),
            loss=last["loss"],
            accuracy=last["accuracy"],
            seconds=round(time.monotonic() - started, 3),
        )
        (folder.root / RECORD).unlink(missing_ok=True)
        place_files(folder, files)
        write_json(folder.spec_file, spec.model_dump(mode="json"))
        # Last: where it is, the refit is whole.
        write_json(folder.root / RECORD, refit.as_dict())
    return refit


def with_validation(shop: RetrainingSetup, reporter: Reporter) -> SharedWork:
    """The shared work of a search in which the validation images are trained on too.

    The training images' bank is the search's own; only the validation images' augmented views
    are new. One image stands in for the validation split, which training must score.
    """
    work = shop.work
    moved = tuple(replace(entry, split="train") for entry in shop.manifest.split("validation"))
    as_training = replace(shop.manifest, entries=(*moved, *shop.manifest.split("validation")))
    banks = prepare_banks(
        shop.config,
        as_training,
        {key: shop.backbones[key] for key in work.banks},
        PixelStore(as_training, cache_dir(), reporter.stage, say=reporter.say),
        shop.plan,
        cache_dir(),
        reporter.stage,
    )
    return replace(
        work,
        train_labels=np.concatenate([work.train_labels, work.val_labels]),
        val_labels=work.val_labels[:1],
        pixels={
            size: PixelRefs(
                _concatenate.remote(refs.train, refs.validation), _first(refs.validation)
            )
            for size, refs in work.pixels.items()
        },
        banks={key: _joined(work.banks[key], bank) for key, bank in banks.items()},
    )


def _joined(train: BankRefs, validation: BankRefs) -> BankRefs:
    """One bank of both splits' views; image i of either has the same angles, which harms none."""
    angles = np.concatenate([train.table.angles, validation.table.angles])
    return BankRefs(
        table=ViewTable(angles, train.table.rings),
        train={
            name: _concatenate.remote(train.train[name], validation.train[name])
            for name in POOLINGS
        },
        validation={name: _first(train.validation[name]) for name in POOLINGS},
    )


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _concatenate(*parts: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts)


def _first(reference: Any) -> Any:
    """A reference to the first item of an array."""
    return ray.put(np.array(ray.get(reference)[:1]))


def _follow(
    task: Any, name: str, epochs: int, reporter: Reporter
) -> tuple[dict[str, float], dict[str, bytes]]:
    """Shows a training's epochs; returns the last one's metrics and the files."""
    last: dict[str, float] = {}
    for reference in task:
        report = result(reference)
        if "epoch" not in report:
            return last, report
        last = report
        reporter.stage(f"refit {name} (epochs)", int(last["epoch"]), epochs)
    raise RuntimeError("the training ended without its files")


# Tried again where `claim_process` has left a process that another search had used.
@ray.remote(num_returns="streaming", max_retries=3)  # type: ignore[untyped-decorator]
def _train_whole(spec: TrialSpec, work: SharedWork) -> Iterator[dict[str, Any]]:
    """Trains all epochs and keeps the last.

    Yields:
        An epoch's metrics on the images trained on; at the end the files to keep, by name.
    """
    claim_process(work.threads)
    policy = begin_session(spec)
    trial = build_trial(spec, work)
    with tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        folder = TrialFolder(Path(scratch))
        rows = []
        for result in trial.train(1):
            row = {"epoch": result.epoch, **{name: result.metrics[name] for name in KEPT}}
            rows.append(row)
            yield row
        folder.write_metrics(rows)
        write_json(folder.facts_file, describe_training(trial, policy, work))
        folder.best.mkdir()
        trial.core.save_weights(folder.best_weights)
        weights = str(folder.best_weights.relative_to(folder.root))
        yield {**small_files(folder), weights: folder.best_weights.read_bytes()}
