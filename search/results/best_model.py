"""A run's models loaded: a trial's best epoch, its refit, or an ensemble, as one Keras model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.manifest_io import read_header
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import check_limits, family_of
from pawtune.models.model_spec import ModelSpec
from pawtune.search.errors import UserError
from pawtune.search.process import load_tensorflow
from pawtune.search.results.calibration import trial_temperature
from pawtune.search.results.delivery.model_file import open_model
from pawtune.search.results.model_choice import ModelChoice, ensemble_file, refit_folder
from pawtune.search.storage.run_folder import RunFolder, TrialFolder

if TYPE_CHECKING:
    import keras


def load_choice(run: RunFolder, choice: ModelChoice, num_classes: int) -> "keras.Model":
    """The complete model: (N, H, W, 3) pixels to (N, num_classes) float32 probabilities.

    Raises:
        UserError: Its files are damaged.
    """
    if choice.kind == "trial":
        return load_complete(run, run.trial(choice.trial_id), num_classes)
    if choice.kind == "refit":
        return load_complete(run, refit_folder(run, choice.trial_id), num_classes)
    model, _ = open_model(ensemble_file(run))
    if model.output_shape != (None, num_classes):
        raise UserError(
            f"{ensemble_file(run)} must tell {num_classes} classes apart, received an output of "
            f"shape {model.output_shape}; make it again with `pawtune ensemble {run.name}`"
        )
    return model


def load_complete(run: RunFolder, trial: TrialFolder, num_classes: int) -> "keras.Model":
    """A trial's best epoch, or its refit, as a complete model at the trial's temperature.

    Returns:
        (N, H, W, 3) uint8 pixels of any size to (N, num_classes) float32 probabilities;
        resizing and preprocessing inside, augmentation off.

    Raises:
        UserError: The trial kept no weights, or they do not fit its specification.
    """
    load_tensorflow()
    from pawtune.models.complete_model import compose_complete
    from pawtune.models.precision import precision

    spec = run.spec_of(trial.trial_id).model
    with precision("float32"):
        backbones: dict[Backbone, keras.Model] = {}
        load_backbones(run, spec, backbones)
        core = load_core(trial, spec, num_classes, backbones)
        return compose_complete(
            spec,
            num_classes,
            core,
            backbones,
            temperature=trial_temperature(run, trial.trial_id),
            resizing=read_header(run.root).resizing,
        )


def load_backbones(run: RunFolder, spec: ModelSpec, loaded: "dict[Backbone, keras.Model]") -> None:
    """Adds the frozen backbones of a model to those that are loaded, from the run folder."""
    from pawtune.models.backbones.frozen_backbone import load_backbone

    for need in family_of(spec).needs(spec, bank_views=0):
        if isinstance(need, Backbone) and need not in loaded:
            loaded[need] = load_backbone(*need, run.backbone_weights(*need))


def load_core(
    trial: TrialFolder,
    spec: ModelSpec,
    num_classes: int,
    backbones: "Mapping[Backbone, keras.Model]",
) -> "keras.Model":
    """The trained part of a trial, with its kept weights.

    Raises:
        UserError: There are none, or they do not fit the specification.
    """
    if not trial.best_weights.exists():
        raise UserError(
            f"trial {trial.trial_id}'s weights must fit its specification, and it has none: a "
            "search keeps those of its best (keep_weights) and of each family's best; choose "
            f"one of these, or train it again: `pawtune refit RUN --trial {trial.trial_id}`"
        )
    check_limits(spec, num_classes)  # an untrusted one may be past any memory
    core = family_of(spec).build_core(spec, num_classes, backbones)
    try:
        core.load_weights(trial.best_weights)
    except Exception as error:  # h5py and Keras raise a dozen types for a file that is not it
        raise UserError(
            f"trial {trial.trial_id}'s weights must fit its specification: {trial.best_weights}: "
            f"{shown(' '.join(str(error).split()))[:300]}; choose another trial with --rank or "
            "--trial"
        ) from error
    return core
