"""Exported models answer as the Keras model does; what cannot be exported is refused early."""

import os
import sys
from pathlib import Path

import keras
import pytest

from pawtune.models.build import build_network
from pawtune.models.spec import ConvSpec, TrainSpec, TrialSpec
from pawtune.search.errors import UserError
from pawtune.search.results.delivery.export import export_model
from pawtune.search.results.delivery.model_card import make_card
from pawtune.search.results.model_choice import choose_model
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import RunFolder
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose only trial keeps the weights of an untrained net of 32 px."""
    root = tmp_path_factory.mktemp("export")
    maker = RunMaker(root / "runs", make_images(root / "images", ["a", "b", "c"]))
    model = ConvSpec(family="conv", image_size=32, filters=(8, 8), dropout=0.0)
    trial_id = maker.add(TrialSpec(name="small", model=model, train=TrainSpec(epochs=2)))
    trial = maker.folder.trial(trial_id)
    build_network(model, 3, seed=1).core.save_weights(trial.best_weights)
    return maker.finish()


@pytest.mark.parametrize("kind", ["keras", "savedmodel", "tflite", "onnx"])
def test_every_format_answers_as_the_keras_model_does(
    folder: RunFolder, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / {"savedmodel": "best"}.get(kind, f"best.{kind}")
    found = pawtune(capsys, "export", folder.root, "--format", kind, "--out", out, "--json")
    assert found.code == 0, found.err
    assert found.json["path"] == str(out)
    assert found.json["max_difference"] < 1e-4
    expected = {"savedmodel": ["best"]}.get(kind, [f"best.{kind}", "best.json", "best.md"])
    assert sorted(os.listdir(out.parent)) == sorted(expected)
    if kind == "savedmodel":
        assert {"saved_model.pb", "model_card.json", "model_card.md"} <= set(os.listdir(out))


def test_an_exported_keras_file_is_one_that_predict_takes(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "best.keras"
    told = pawtune(capsys, "export", folder.root, "--out", out).out
    assert "checked: no probability differs" in told
    image = Path(Run(folder).manifest().root) / "a" / "000.jpg"
    assert pawtune(capsys, "predict", out, image, "--json").json[0]["label"] in "abc"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("coreml", "a.mlmodel", "--format must be one of keras, savedmodel, onnx, tflite"),
        ("tflite", "a.keras", r"--out must end in \.tflite .* got '.*a\.keras'"),
        ("savedmodel", "", "--out must be a folder that is not there yet"),
    ],
)
def test_what_cannot_be_written_is_refused(
    folder: RunFolder, tmp_path: Path, kind: str, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Run(folder).export(tmp_path / name, kind)
    assert os.listdir(tmp_path) == []


def test_missing_libraries_are_one_line_before_any_work(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tf2onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    message = r"needs onnxruntime and tf2onnx, not .* pip install 'pawtune\[onnx\]'"
    with pytest.raises(UserError, match=message):
        Run(folder).export(tmp_path / "a.onnx", "onnx")
    assert os.listdir(tmp_path) == []


class Forgetful(keras.layers.Layer):
    """A layer that comes back from a file with another factor."""

    def __init__(self, factor: float = 2.0, **options: object) -> None:
        super().__init__(**options)
        self.factor = factor

    def get_config(self) -> dict[str, object]:
        return {"name": self.name}

    def call(self, inputs: object) -> object:
        return inputs * self.factor


def test_a_model_that_answers_otherwise_is_not_kept(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(keras.saving.get_custom_objects(), "Forgetful", Forgetful)
    inputs = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 255)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(Forgetful(3.0)(pixels))
    run = Run(folder)
    chosen = choose_model(folder, run.rows())
    card = make_card(folder, run.rows(), chosen, run.manifest(), "val_accuracy")
    with pytest.raises(UserError, match=r"to within 0\.01, got a difference of .* not kept"):
        export_model(keras.Model(inputs, pooled), card, "keras", tmp_path / "a.keras")
    assert os.listdir(tmp_path) == []
