"""How sure a trial's model may be: its temperature and label sets, from validation predictions.

Both are computed when they are needed, so that run folders made by earlier versions have them too.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.manifest import Manifest, validation_labels
from pawtune.models.out_of_fold.calibration import (
    HIGHEST,
    LOWEST,
    choose_temperature,
    cross_fitted,
    tempered,
)
from pawtune.models.out_of_fold.conformal import set_threshold
from pawtune.search.errors import UserError
from pawtune.search.results.metrics import ReliabilityBin, calibration_error, reliability
from pawtune.search.results.model_choice import ModelChoice
from pawtune.search.results.validation import read_choice, read_predictions
from pawtune.search.storage.records import EnsembleRecord
from pawtune.search.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Calibration:
    """A trial's calibration on the validation split.

    Attributes:
        temperature: Divisor of the delivered model's logits, fitted on all validation images.
        images: Number of validation images.
        error_before: Expected calibration error at temperature 1.
        error_after: The same, each image at the temperature fitted on the other folds.
        bins_before: Reliability diagram at temperature 1.
        bins_after: Reliability diagram of the cross-fitted probabilities.
    """

    temperature: float
    images: int
    error_before: float
    error_after: float
    bins_before: tuple[ReliabilityBin, ...]
    bins_after: tuple[ReliabilityBin, ...]

    def as_dict(self) -> dict[str, Any]:
        """For the model card, as plain JSON values."""
        content = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}


def trial_temperature(run: RunFolder, trial_id: str) -> float:
    """What a trial's logits are divided by; 1 where its validation predictions cannot be read."""
    try:
        class_names, labels = validation_labels(run.root)
    except DataError:
        return 1.0
    found = read_predictions(run.trial(trial_id), (len(labels), len(class_names)))
    return 1.0 if isinstance(found, str) else choose_temperature(found, labels)


def choice_temperature(run: RunFolder, choice: ModelChoice) -> float | None:
    """A trial's temperature; a refit has that of its trial; None: a vote of earlier versions."""
    if not isinstance(choice.record, EnsembleRecord):
        return trial_temperature(run, choice.trial_id)
    kept = choice.record.temperature
    return kept if isinstance(kept, float) and LOWEST <= kept <= HIGHEST else None


def measure_calibration(found: NDArray[np.float32] | str, manifest: Manifest) -> Calibration | None:
    """Calibration of (N, C) validation predictions; None where there are none, or a reason why."""
    if isinstance(found, str) or not len(found):
        return None
    labels = manifest.labels("validation")
    groups = [entry.group for entry in manifest.split("validation")]
    after = cross_fitted(found, labels, np.unique(groups, return_inverse=True)[1])
    return Calibration(
        temperature=choose_temperature(found, labels),
        images=len(labels),
        error_before=calibration_error(found, labels),
        error_after=calibration_error(after, labels),
        bins_before=reliability(found, labels),
        bins_after=reliability(after, labels),
    )


def label_set_threshold(
    run: RunFolder, choice: ModelChoice, manifest: Manifest, coverage: float
) -> float:
    """The least probability of a label in label sets of this coverage, see `conformal`.

    Raises:
        UserError: The model was trained on the validation images, or kept no predictions of them.
        ModelError: There are too few validation images for this coverage.
    """
    if choice.kind == "refit":
        raise UserError(
            f"--coverage needs validation images that the model has not seen, received "
            f"{choice.title}, which was trained on them; leave out --refit"
        )
    found = read_choice(run, choice, manifest)
    if isinstance(found, str):
        raise UserError(f"--coverage needs validation predictions, and {found}; choose another")
    labels = manifest.labels("validation")
    return set_threshold(tempered(found, choice_temperature(run, choice) or 1), labels, coverage)
