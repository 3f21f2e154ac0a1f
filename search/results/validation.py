"""A trial's stored validation predictions evaluated: confusion, classes, worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.search.results.metrics import ClassScore, confusion_matrix, score_classes
from pawtune.search.results.model_choice import ModelChoice, ensemble_predictions
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.storage.untrusted_files import read_array


@dataclass(frozen=True)
class Mistake:
    """A validation image that the model got wrong, with its probabilities for both labels."""

    entry: ManifestEntry
    predicted: str
    predicted_probability: float
    true_probability: float


@dataclass(frozen=True)
class ValidationView:
    """The validation split as one trial's best epoch saw it.

    Attributes:
        confusion: (C, C) images by true and predicted class.
        mistakes: The most confident first.
    """

    confusion: NDArray[np.int64]
    classes: tuple[ClassScore, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def num_images(self) -> int:
        return int(self.confusion.sum())


def read_validation(trial: TrialFolder, manifest: Manifest) -> ValidationView | str:
    """A trial's validation predictions; or, in words, why there are none.

    Example:
        >>> view = read_validation(run.trial("0007"), manifest)  # doctest: +SKIP
    """
    probabilities = read_probabilities(trial, manifest)
    if isinstance(probabilities, str):
        return probabilities
    entries = manifest.split("validation")
    names = manifest.class_names
    labels = manifest.labels("validation")
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(names))
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    return ValidationView(
        confusion=confusion,
        classes=score_classes(confusion, names),
        mistakes=tuple(
            Mistake(
                entry=entries[place],
                predicted=names[predicted[place]],
                predicted_probability=float(probabilities[place, predicted[place]]),
                true_probability=float(probabilities[place, labels[place]]),
            )
            for place in wrong
        ),
    )


def read_probabilities(trial: TrialFolder, manifest: Manifest) -> NDArray[np.float32] | str:
    """(N, C) a trial's probabilities for the validation split; or, in words, why there are none."""
    images = sum(manifest.counts()["validation"].values())
    return read_predictions(trial, (images, len(manifest.class_names)))


def read_mean(
    run: RunFolder, trial_ids: Sequence[str], manifest: Manifest
) -> NDArray[np.float32] | str:
    """(N, C) mean of several trials' probabilities for the validation split; or why not."""
    found = [read_probabilities(run.trial(trial_id), manifest) for trial_id in trial_ids]
    missing = [reason for reason in found if isinstance(reason, str)]
    if missing:
        return missing[0]
    mean: NDArray[np.float32] = np.mean([p for p in found if not isinstance(p, str)], axis=0)
    return mean


def read_choice(
    run: RunFolder, choice: ModelChoice, manifest: Manifest
) -> NDArray[np.float32] | str:
    """(N, C) a model's probabilities for the validation split, at temperature 1; or why not."""
    if not choice.is_soup:
        return read_mean(run, choice.trial_ids, manifest)
    shape = (len(manifest.split("validation")), len(manifest.class_names))
    return _read(ensemble_predictions(run), shape, "the weight average")


def read_predictions(trial: TrialFolder, shape: tuple[int, int]) -> NDArray[np.float32] | str:
    """The same where the numbers of images and classes are known: counting takes time."""
    return _read(trial.best_predictions, shape, f"trial {trial.trial_id}")


def _read(path: Path, shape: tuple[int, int], what: str) -> NDArray[np.float32] | str:
    try:
        probabilities = read_array(path, shape)
    except FileNotFoundError:
        return f"{what} kept no validation predictions"
    except ValueError as error:
        return f"the validation predictions of {what} cannot be read: {error}"
    # NaN compares false with both.
    if probabilities.size and not (probabilities.min() >= -0.01 and probabilities.max() <= 1.01):
        return (
            f"the validation predictions of {what} must be probabilities from 0 to 1; some are not"
        )
    return probabilities
