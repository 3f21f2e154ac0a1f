"""How sure a trial's model may be: its temperature and label sets, from validation predictions.

Both are computed when they are needed, so that run folders made by earlier versions have them too.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.manifest import Manifest, validation_labels
from pawtune.models.out_of_fold.calibration import choose_temperature, cross_fitted, tempered
from pawtune.models.out_of_fold.conformal import set_threshold
from pawtune.search.errors import UserError
from pawtune.search.results.metrics import ReliabilityBin, calibration_error, reliability
from pawtune.search.results.model_choice import ModelChoice
from pawtune.search.results.validation import read_predictions, read_probabilities
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
    """A trial's temperature; a refit has that of its trial; None: a vote has none."""
    return None if choice.kind == "ensemble" else trial_temperature(run, choice.trial_id)


def measure_calibration(run: RunFolder, trial_id: str, manifest: Manifest) -> Calibration | None:
    """A trial's calibration; None without validation images or predictions of them."""
    found = read_probabilities(run.trial(trial_id), manifest)
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
        UserError: The model is no trial, or kept no validation predictions.
        ModelError: There are too few validation images for this coverage.
    """
    if choice.kind != "trial":
        raise UserError(
            f"--coverage needs a model with validation predictions of its own: a trial, received "
            f"{choice.title}; leave out --{choice.kind}"
        )
    found = read_probabilities(run.trial(choice.trial_id), manifest)
    if isinstance(found, str):
        raise UserError(f"--coverage needs validation predictions, and {found}; choose another")
    labels = manifest.labels("validation")
    return set_threshold(tempered(found, choose_temperature(found, labels)), labels, coverage)
