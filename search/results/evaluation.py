"""Scores a model on the test split: here and nowhere else; every look is recorded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.splitting.image_check import check_unchanged
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.out_of_fold.calibration import tempered
from pawtune.search.errors import UserError
from pawtune.search.results.best_model import load_choice
from pawtune.search.results.calibration import choice_temperature
from pawtune.search.results.delivery.inference import predict_files, predictor
from pawtune.search.results.evaluation_record import (
    BaselineScore,
    EvaluationRecord,
    TestMistake,
    cells_of,
)
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.look_ledger import record_look, refuse_unwritable
from pawtune.search.results.metrics import (
    ClassScore,
    Comparison,
    Majority,
    calibration_error,
    compare_paired,
    confusion_matrix,
    score_classes,
    wilson_interval,
)
from pawtune.search.results.model_choice import Kind, ModelChoice, choose_model
from pawtune.search.results.reference import baselines_among, reference_of
from pawtune.search.storage.run_folder import RunFolder


@dataclass(frozen=True)
class TestResult:
    """A look at the test split.

    Attributes:
        interval_95: Wilson's 95% interval of the accuracy.
        looks: How many times this run's test split has been looked at, this time included.
        confusion: Images by true and predicted class, in the order of `class_names`.
        calibration_error: Expected calibration error, 15 bins of equal width.
        calibration_error_before: The same without the temperature that was fitted on validation
            images; None of a vote of earlier versions, which has none.
        baseline: Reference that it is compared with; None where it is the reference itself.
        comparison: McNemar's exact test against `baseline`; `only_first` counts the images that
            only the trial names right.
        mistakes: Every image named wrong, the most confident first.
        model: Kind of model that was scored: a trial, its refit, or the ensemble, whose `trial_id`
            joins those of its members by "+".
        title: The same for people.
        majority: The test split's most frequent class.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    accuracy: float
    correct: int
    n: int
    interval_95: tuple[float, float]
    trial_id: str
    baseline: BaselineScore | None
    looks: int
    class_names: tuple[str, ...]
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    comparison: Comparison | None
    mistakes: tuple[TestMistake, ...]
    model: Kind = "trial"
    title: str = ""
    majority: Majority | None = None
    calibration_error_before: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """A look at the test split, image by image.

    Attributes:
        result: The record of the look.
        entries: The N test images.
        labels: (N,) class indices.
        probabilities: (N, C) float32, of the model.
    """

    result: TestResult
    entries: Sequence[ManifestEntry]
    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]


def look_at_test(
    run: RunFolder, manifest: Manifest, root: Path, rows: list[Row], choice: ModelChoice
) -> Look:
    """Scores a model of the run on the test split, beside its reference, and records it.

    Args:
        run: The run.
        manifest: Its splits.
        root: Folder of the images now.
        rows: The leaderboard.
        choice: The model to score.

    Raises:
        UserError: There is no test split, a test image is not what it was, or the run cannot be
            written.
    """
    entries = manifest.split("test")
    if not entries:
        raise UserError(
            f"a test needs a test split, and run {run.name} has no test images; "
            "start a run on data with more images, or with a test/ folder"
        )
    check_unchanged(root, entries, what="test")
    refuse_unwritable(run)
    labels = manifest.labels("test")
    probabilities = _predict(run, manifest, root, entries, choice)
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    baseline, comparison = None, None
    reference, kind = reference_of(rows, baselines_among(run, rows))
    if reference is not None:
        against = choose_model(run, rows, trial=reference.trial_id)
        if against != choice:  # a model is not compared with itself
            others = _predict(run, manifest, root, entries, against)
            others_right = others.argmax(axis=1) == labels
            comparison = compare_paired(right, others_right)
            baseline = BaselineScore(reference.name, float(others_right.mean()), kind)
    confusion = confusion_matrix(labels, predicted, len(manifest.class_names))
    result = TestResult(
        accuracy=float(right.mean()),
        correct=int(right.sum()),
        n=len(entries),
        interval_95=wilson_interval(int(right.sum()), len(entries)),
        trial_id=choice.trial_id,
        baseline=baseline,
        looks=0,
        class_names=manifest.class_names,
        classes=score_classes(confusion, manifest.class_names),
        confusion=tuple(tuple(int(count) for count in line) for line in confusion),
        calibration_error=calibration_error(probabilities, labels),
        calibration_error_before=_error_before(run, choice, probabilities, labels),
        comparison=comparison,
        mistakes=_mistakes(entries, manifest.class_names, probabilities, right),
        model=choice.kind,
        title=choice.title,
        majority=Majority(*manifest.majority("test")),
    )
    result = replace(result, looks=record_look(run, _record(result)))
    return Look(result, entries, labels, probabilities)


def _error_before(
    run: RunFolder,
    choice: ModelChoice,
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
) -> float | None:
    temperature = choice_temperature(run, choice)
    if temperature is None:
        return None
    return calibration_error(tempered(probabilities, 1 / temperature), labels)


def _record(result: TestResult) -> EvaluationRecord:
    content = {name: value for name, value in asdict(result).items() if name != "confusion"}
    time = datetime.now(UTC).isoformat()
    cells = cells_of(result.confusion)
    return EvaluationRecord.model_validate({"time": time, **content, "confusion_cells": cells})


def _predict(
    run: RunFolder,
    manifest: Manifest,
    root: Path,
    entries: Sequence[ManifestEntry],
    choice: ModelChoice,
) -> NDArray[np.float32]:
    """(N, C) probabilities of a model."""
    model = load_choice(run, choice, len(manifest.class_names))
    size = choice.image_size
    probabilities = []
    files = [root / entry.path for entry in entries]
    for prediction in predict_files(predictor(model), files, size, manifest.decoding):
        if prediction.probabilities is None:
            raise UserError(f"every test image must be readable: {prediction.reason}")
        probabilities.append(prediction.probabilities)
    return np.stack(probabilities)


def _mistakes(
    entries: Sequence[ManifestEntry],
    names: Sequence[str],
    probabilities: NDArray[np.float32],
    right: NDArray[np.bool_],
) -> tuple[TestMistake, ...]:
    found = [
        TestMistake(
            path=entry.path,
            label=entry.label,
            predicted=names[int(row.argmax())],
            probability=float(row.max()),
        )
        for entry, row, is_right in zip(entries, probabilities, right, strict=True)
        if not is_right
    ]
    return tuple(sorted(found, key=lambda mistake: -mistake.probability))
