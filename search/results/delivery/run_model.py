"""A model of a run delivered: complete with its card, as a file, or ready to predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.results.best_model import load_choice
from pawtune.search.results.calibration import label_set_threshold
from pawtune.search.results.delivery.inference import novelty_predictor, predictor
from pawtune.search.results.delivery.model_file import check_keras_target, save_complete
from pawtune.search.results.delivery.opened import OpenedModel
from pawtune.search.results.delivery.out_files import card_files, refuse_existing
from pawtune.search.results.model_choice import ModelChoice, default_file
from pawtune.search.results.novelty import Progress, find_novelty
from pawtune.search.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import keras


def open_choice(
    run: RunFolder,
    choice: ModelChoice,
    manifest: Manifest,
    coverage: float | None = None,
    progress: Progress | None = None,
) -> OpenedModel:
    """The model with its labels; with novelty where `find_novelty` has it.

    Args:
        run: The run.
        choice: The model.
        manifest: The run's splits.
        coverage: Also give label sets that hold the true label so often, between 0 and 1.
        progress: Called with (stage, images done, images in all).

    Raises:
        UserError: Label sets of a model without validation predictions of its own.
        ModelError: Too few validation images for this coverage.
    """
    threshold = None
    if coverage is not None:
        threshold = label_set_threshold(run, choice, manifest, coverage)
    complete = load_choice(run, choice, len(manifest.class_names))
    novelty = find_novelty(run, choice, complete, manifest, progress)
    return OpenedModel(
        predictor(complete),
        manifest.class_names,
        choice.image_size,
        manifest.decoding,
        threshold,
        novelty_predictor(complete, novelty) if novelty is not None else None,
    )


def keras_target(run: RunFolder, choice: ModelChoice, out: str | Path | None, force: bool) -> Path:
    """Where the `.keras` file goes: `out`, by default the run's own file for this model.

    Raises:
        UserError: `out` exists, without `force`, or cannot be written.
    """
    if out is None:
        return default_file(run, choice)
    target = expanded(out)
    check_keras_target(target)
    refuse_existing([target, *card_files(target)], force)
    return target


def save_choice(
    run: RunFolder,
    choice: ModelChoice,
    manifest: Manifest,
    complete: "keras.Model",
    card: dict[str, Any],
    target: Path,
    progress: Progress | None = None,
) -> None:
    """Writes the complete model with its card and its novelty as one `.keras` file."""
    save_complete(complete, card, target, find_novelty(run, choice, complete, manifest, progress))
    run.keep_new()
