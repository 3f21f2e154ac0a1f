"""Retrieving a trial's best epoch as one complete Keras model with its card."""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.safe_files import shown
from pawtune.models.spec import ConvSpec, TransferSpec, check_limits
from pawtune.search.errors import UserError
from pawtune.search.process import load_tensorflow
from pawtune.search.results.card_text import card_markdown
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_file import CARD_MEMBER
from pawtune.search.storage.run_folder import (
    RunFolder,
    TrialFolder,
    write_json,
    write_text,
)
from pawtune.search.storage.trial_spec import load_spec

if TYPE_CHECKING:
    import keras


def choose(rows: list[Row], *, trial_id: str | None = None, rank: int | None = None) -> Row:
    """The trial by id, by rank, or the best.

    Raises:
        UserError: No such trial, or one without a finished epoch.
    """
    usable = [row for row in rows if row.best_epoch is not None]
    if not usable:
        raise UserError(
            "a best checkpoint needs a trial with at least one finished epoch, and this run has "
            "none; see `pawtune leaderboard` for what became of its trials"
        )
    if trial_id is not None:
        found = [row for row in rows if trial_id in (row.trial_id, row.name)]
        asked, choices = f"--trial {trial_id}", ", ".join(row.trial_id for row in usable)
    else:
        found = [row for row in rows if row.rank == (rank or 1)]
        asked, choices = f"--rank {rank}", f"1 to {len(usable)}"
    if not found or found[0] not in usable:
        raise UserError(
            f"{asked} must name a trial with a finished epoch; this run offers: {choices}"
        )
    return found[0]


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

    check_limits(spec, num_classes)  # a stranger's may be past any memory
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


def save_complete(model: "keras.Model", card: dict[str, Any], out: Path) -> None:
    """Writes `out` (.keras) whole or not at all; its card inside it, and beside it twice.

    `best.keras` gets `best.json` and, for people, `best.md`.

    Raises:
        UserError: `out` does not end in .keras, or cannot be written.
    """
    if out.suffix != ".keras":
        raise UserError(f"--out must end in .keras, got {str(out)!r}; for example --out best.keras")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.stem}.", suffix=".keras")
        os.close(handle)
        temporary = Path(name)
        try:
            model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(CARD_MEMBER, json.dumps(card, allow_nan=False))
            temporary.chmod(0o644)
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
        write_json(card_path(out), card)
        write_text(card_path(out).with_suffix(".md"), card_markdown(card))
    except OSError as error:
        raise UserError(
            f"--out must be a file that can be written, got {str(out)!r}: {error}"
        ) from error


def card_path(model_file: Path) -> Path:
    """Where a model's card lies: `best.keras` has `best.json`, `model.keras` its fixed name."""
    if model_file.name == "model.keras":
        return model_file.with_name("model_card.json")
    return model_file.with_suffix(".json")
