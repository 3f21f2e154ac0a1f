"""The state of a trial between epochs, on disk: weights, optimizer, epoch; nothing pickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import keras
import numpy as np

from pawtune.models.backbones.backbone_weights import one_line
from pawtune.models.errors import ModelError

_STATE = "state.json"


def save_state(
    core: keras.Model, optimizer: keras.optimizers.Optimizer, epoch: int, folder: Path
) -> None:
    """Save what the next epoch starts from.

    Data files carry the epoch in their names; `state.json`, replaced last and at once, says
    which of them count and what their contents hash to. Whoever is killed half-way leaves the
    state before.

    Args:
        core: the trained part of a network.
        optimizer: built for the core's trainable weights, as training leaves it.
        epoch: the last one finished.
        folder: made where missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"epoch_{epoch}.weights.h5"
    slots = folder / f"epoch_{epoch}.optimizer.npz"
    core.save_weights(weights)
    values = [np.asarray(variable) for variable in optimizer.variables]
    np.savez(slots, allow_pickle=False, **{f"{i:05d}": v for i, v in enumerate(values)})
    state = {
        "epoch": epoch,
        "weights": {"file": weights.name, "sha256": _digest(weights)},
        "optimizer": {"file": slots.name, "sha256": _digest(slots)},
    }
    temporary = folder / f"{_STATE}.tmp"
    temporary.write_text(json.dumps(state, indent=1) + "\n")
    os.replace(temporary, folder / _STATE)
    for file in folder.glob("epoch_*"):
        if file not in (weights, slots):
            file.unlink()


def restore_state(
    core: keras.Model, optimizer: keras.optimizers.Optimizer, folder: Path
) -> int | None:
    """Load a saved state into a core and an optimizer, both newly built from the same spec.

    Returns:
        The last epoch finished; None where nothing was saved.

    Raises:
        ModelError: the state is damaged or belongs to another model; both are then in doubt.
    """
    try:
        text = (folder / _STATE).read_text()
    except FileNotFoundError:
        return None
    try:
        state = json.loads(text)
        weights, slots = (_checked(folder, state[key]) for key in ("weights", "optimizer"))
        core.load_weights(weights)
        optimizer.build(core.trainable_variables)
        with np.load(slots, allow_pickle=False) as values:
            for variable, key in zip(optimizer.variables, sorted(values.files), strict=True):
                variable.assign(values[key])
        return int(state["epoch"])
    except Exception as error:  # json, numpy, h5py and Keras raise many types for a bad file
        raise ModelError(
            f"the saved state in {folder} cannot be continued ({one_line(error)}): "
            "delete that folder to train this trial from its first epoch"
        ) from error


def _checked(folder: Path, entry: dict[str, str]) -> Path:
    # Only the name: a state file from somebody else must not lead out of its folder.
    file = folder / Path(entry["file"]).name
    if _digest(file) != entry["sha256"]:
        raise ValueError(f"{file.name} is not what was saved")
    return file


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
