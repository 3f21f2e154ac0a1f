"""A run's models loaded: a trial's best epoch, its refit, or the soft vote, as one Keras model."""

from typing import TYPE_CHECKING

from pawtune.data_pipeline.safe_files import shown
from pawtune.models.spec import ConvSpec, TransferSpec, check_limits
from pawtune.search.errors import UserError
from pawtune.search.process import load_tensorflow
from pawtune.search.results.delivery.model_file import open_model
from pawtune.search.results.model_choice import ModelChoice, ensemble_file, refit_folder
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.storage.trial_spec import load_spec

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
    """A trial's best epoch, or its refit, as a complete model.

    Returns:
        (N, H, W, 3) uint8 pixels of any size to (N, num_classes) float32 probabilities;
        resizing and preprocessing inside, augmentation off.

    Raises:
        UserError: The trial kept no weights, or they do not fit its specification.
    """
    load_tensorflow()
    from pawtune.models import build
    from pawtune.models.precision import precision

    spec = load_spec(run, trial.trial_id).model
    with precision("float32"):
        backbone = load_backbone_of(run, spec)
        core = load_core(trial, spec, num_classes, backbone)
        return build.compose_complete(spec, num_classes, core, backbone)


def load_backbone_of(run: RunFolder, spec: ConvSpec | TransferSpec) -> "keras.Model | None":
    """The frozen backbone of a specification, from the run folder; None where it has none."""
    from pawtune.models.families import transfer

    if not isinstance(spec, TransferSpec):
        return None
    weights = run.backbone_weights(spec.backbone, spec.image_size)
    return transfer.load_backbone(spec.backbone, spec.image_size, weights)


def load_core(
    trial: TrialFolder,
    spec: ConvSpec | TransferSpec,
    num_classes: int,
    backbone: "keras.Model | None",
) -> "keras.Model":
    """The trained part of a trial, with its kept weights.

    Raises:
        UserError: There are none, or they do not fit the specification.
    """
    from pawtune.models import build

    check_limits(spec, num_classes)  # an untrusted one may be past any memory
    network = build.build_network(spec, num_classes, seed=0, backbone=backbone)
    try:
        network.core.load_weights(trial.best_weights)
    except Exception as error:  # h5py and Keras raise a dozen types for a file that is not it
        raise UserError(
            f"trial {trial.trial_id}'s weights must fit its specification: {trial.best_weights}: "
            f"{shown(' '.join(str(error).split()))[:300]}; choose another trial with --rank or "
            "--trial"
        ) from error
    return network.core
