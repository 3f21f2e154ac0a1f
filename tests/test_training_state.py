"""States of trials: saved whole or not at all, refused when damaged."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.errors import ModelError
from pawtune.models.training import training_state as state
from pawtune.models.training.training_state import restore_state, save_state


def new_trial(width: int = 4) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def trained_trial(steps: int = 1) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    model, optimizer = new_trial()
    for _ in range(steps):
        gradients = [keras.ops.ones(weight.shape) for weight in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
    return model, optimizer


def values(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in (*model.variables, *optimizer.variables)]


def assert_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_comes_back(tmp_path: Path) -> None:
    saved = trained_trial()
    save_state(*saved, 3, tmp_path / "last")
    fresh = new_trial()
    assert restore_state(*fresh, tmp_path / "last") == 3
    assert_same(values(*saved), values(*fresh))


def test_nothing_saved_is_no_error(tmp_path: Path) -> None:
    assert restore_state(*new_trial(), tmp_path / "never") is None


def test_only_the_latest_state_is_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_state(*trained_trial(epoch), epoch, tmp_path)
    names = ["epoch_3.optimizer.npz", "epoch_3.weights.h5", "state.json"]
    assert sorted(os.listdir(tmp_path)) == names


@pytest.mark.parametrize("stage", ["weights", "optimizer", "state.json", "removal"])
def test_a_kill_while_saving_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    first, second = trained_trial(1), trained_trial(2)
    save_state(*first, 1, tmp_path)

    def die(*args: object, **options: object) -> None:
        if stage == "weights":
            (tmp_path / "epoch_2.weights.h5").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        target = {
            "weights": (second[0], "save_weights"),
            "optimizer": (np, "savez"),
            "state.json": (os, "replace"),
            "removal": (Path, "unlink"),
        }[stage]
        patch.setattr(*target, die)
        with pytest.raises(KeyboardInterrupt):
            save_state(*second, 2, tmp_path)
    fresh = new_trial()
    kept, epoch = (second, 2) if stage == "removal" else (first, 1)
    assert restore_state(*fresh, tmp_path) == epoch
    assert_same(values(*kept), values(*fresh))
    save_state(*trained_trial(3), 3, tmp_path)
    assert len(os.listdir(tmp_path)) == 3


def damage(folder: Path, what: str) -> None:
    weights, slots = folder / "epoch_1.weights.h5", folder / "epoch_1.optimizer.npz"
    if what == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif what == "changed optimizer":
        data = bytearray(slots.read_bytes())
        data[len(data) // 2] ^= 1
        slots.write_bytes(data)
    elif what == "missing weights":
        weights.unlink()
    elif what == "no json":
        (folder / "state.json").write_text('{"epoch": 1')
    elif what == "a path that leads out":
        shutil.copy(weights, folder.parent / weights.name)
        weights.unlink()
        text = (folder / "state.json").read_text()
        (folder / "state.json").write_text(text.replace(weights.name, f"../{weights.name}"))


@pytest.mark.parametrize(
    "what",
    ["truncated weights", "changed optimizer", "missing weights", "no json"]
    + ["a path that leads out"],
)
def test_a_damaged_state_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "last"
    save_state(*trained_trial(), 1, folder)
    damage(folder, what)
    with pytest.raises(ModelError, match="cannot be continued .*: delete that folder") as caught:
        restore_state(*new_trial(), folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    save_state(*trained_trial(), 1, tmp_path)
    with pytest.raises(ModelError, match="cannot be continued"):
        restore_state(*new_trial(width=5), tmp_path)


def test_pickled_values_are_refused(tmp_path: Path) -> None:
    save_state(*trained_trial(), 1, tmp_path)
    slots = tmp_path / "epoch_1.optimizer.npz"
    np.savez(slots, allow_pickle=True, **{"00000": np.array([{"code": "runs"}], dtype=object)})
    text = json.loads((tmp_path / "state.json").read_text())
    text["optimizer"]["sha256"] = state._digest(slots)
    (tmp_path / "state.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match=r"cannot be continued .*allow_pickle=False"):
        restore_state(*new_trial(), tmp_path)
