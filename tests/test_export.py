"""Exported models answer as the Keras model does; what cannot be exported is refused early."""

import json
import os
import shutil
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pawtune.data_pipeline.images.decode import Decoding
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.families.conv import ConvSpec
from pawtune.search.errors import UserError
from pawtune.search.results.delivery.export import export_model
from pawtune.search.results.delivery.model_card import make_card
from pawtune.search.results.delivery.model_file import MODULES
from pawtune.search.results.delivery.out_files import move_into_place
from pawtune.search.results.model_choice import choose_model
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import RunFolder
from tests.command_line import pawtune
from tests.image_files import write_image
from tests.run_folders import RunMaker, make_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose only trial keeps the weights of an untrained net of 32 px."""
    root = tmp_path_factory.mktemp("export")
    maker = RunMaker(root / "runs", make_images(root / "images", ["a", "b", "c"]))
    model = ConvSpec(family="conv", image_size=32, filters=(8, 8), dropout=0.0)
    maker.add_net(model, seed=1)
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


def test_a_card_of_another_format_is_named(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("{}")
    out = tmp_path / "a.onnx"
    refused = pawtune(capsys, "export", folder.root, "--format", "onnx", "--out", out)
    assert refused.code == 2
    assert f"received '{out}', whose card '{tmp_path / 'a.json'}' is there already" in refused.err
    assert "give another name, such as a-onnx.onnx" in refused.err


@pytest.mark.parametrize("name", ["best", "best.keras", "best.onnx", "best.tflite"])
def test_every_format_resizes_as_the_search_did(
    folder: RunFolder, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise, of which area leaves grey and bilinear one pixel of many."""
    run = RunFolder(shutil.copytree(folder.root, tmp_path / "run"))
    manifest = Manifest.load(run.root)
    replace(manifest, decoding=Decoding(resizing="area")).save(run.root)
    kind = Path(name).suffix[1:] or "savedmodel"
    dynamic = ["--dynamic"] if kind == "tflite" else []
    out = tmp_path / name
    assert pawtune(capsys, "export", run.root, "--format", kind, "--out", out, *dynamic).code == 0
    noise = np.random.default_rng(0).integers(0, 256, (320, 480, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    answers = {}
    for model in (folder.root, run.root, out):
        (record,) = pawtune(capsys, "predict", model, tmp_path / "noise.png", "--json").json
        answers[model] = np.array([*record["probabilities"].values()])
    np.testing.assert_allclose(answers[out], answers[run.root], atol=1e-4)
    np.testing.assert_allclose(Run(run).best()(noise[None])[0], answers[run.root], atol=1e-4)
    assert np.abs(answers[folder.root] - answers[run.root]).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "more"),
    [("keras", ()), ("savedmodel", ()), ("onnx", ()), ("tflite", ()), ("tflite", ("--dynamic",))],
)
def test_predict_takes_all_that_export_writes_and_the_run(
    folder: RunFolder,
    kind: str,
    more: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / {"savedmodel": "best"}.get(kind, f"best.{kind}")
    exported = pawtune(capsys, "export", folder.root, "--format", kind, "--out", out, *more)
    assert "checked: no probability differs" in exported.out
    for card in tmp_path.glob("*.json"):
        card.unlink()  # the file alone suffices
    images = Path(Run(folder).manifest().root) / "a"
    expected = pawtune(capsys, "predict", folder.root, images, "--json").json
    found = pawtune(capsys, "predict", out, images, "--json").json
    assert [record["label"] for record in found] == [record["label"] for record in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)


def test_a_tflite_file_is_used_in_the_three_usual_calls(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its input had no size, so that only a call more, to give it one, made it work."""
    out = tmp_path / "best.tflite"
    told = pawtune(capsys, "export", folder.root, "--format", "tflite", "--out", out).out
    assert "takes uint8 pixels, (1, 32, 32, 3)" in told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(model_path=str(out))
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    pixels = np.random.default_rng(0).integers(0, 256, source["shape"], dtype=source["dtype"])
    interpreter.set_tensor(source["index"], pixels)
    interpreter.invoke()
    found = interpreter.get_tensor(target["index"])
    np.testing.assert_allclose(found, Run(folder).best()(pixels), atol=1e-3)
    with zipfile.ZipFile(out) as archive:
        assert archive.read("labels.txt").decode().split() == ["a", "b", "c"]


def test_floats_from_0_to_1_never_become_black_unsaid(folder: RunFolder, tmp_path: Path) -> None:
    """Each file scales them, or refuses them with a word of its library's."""
    run = Run(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    floats, expected = pixels / np.float32(255), run.best()(pixels)
    for kind, name in (("savedmodel", "best"), ("tflite", "best.tflite"), ("onnx", "b.onnx")):
        run.export(tmp_path / name, kind)
    loaded = tf.saved_model.load(str(tmp_path / "best"))
    others = [floats.astype("float64"), pixels.astype("int32"), pixels.astype("int64")]
    others += [pixels, tf.constant(pixels), floats, tf.constant(floats), floats.tolist()]
    for given in others:
        np.testing.assert_allclose(loaded.serve(given), expected, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected to be a uint8"):
        loaded.signatures["serving_default"](tf.constant(floats))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(model_path=str(tmp_path / "best.tflite"))
    interpreter.allocate_tensors()
    with pytest.raises(ValueError, match="expected type UINT8"):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], floats)
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "b.onnx")
    with pytest.raises(Exception, match=r"expected: \(tensor\(uint8\)\)"):
        session.run(None, {session.get_inputs()[0].name: floats})


def test_files_renamed_in_capitals_are_read_or_refused(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_image(tmp_path / "a.png", 1)
    for kind in ("tflite", "keras"):
        Run(folder).export(tmp_path / f"{kind}.{kind}", kind)
        (tmp_path / f"{kind}.{kind}").rename(tmp_path / f"best.{kind.upper()}")
    assert pawtune(capsys, "predict", tmp_path / "best.TFLITE", image).code == 0
    refused = pawtune(capsys, "predict", tmp_path / "best.KERAS", image)
    assert refused.code == 2
    assert "must end in .keras, in small letters, received" in refused.err


def test_one_rule_for_files_that_exist(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Path(Run(folder).manifest().root) / "a" / "000.jpg"
    commands: dict[str, list[object]] = {
        "a.keras": ["best", folder.root],
        "b.tflite": ["export", folder.root, "--format", "tflite"],
        "folder": ["export", folder.root, "--format", "savedmodel"],
        "report.md": ["report", folder.root, "--format", "md"],
        "labels.csv": ["predict", folder.root, image],
    }
    for name, command in commands.items():
        out = tmp_path / name
        if name == "folder":
            out.mkdir()
            (out / "saved_model.pb").write_text("mine")
        else:
            out.write_text("mine")
        refused = pawtune(capsys, *command, "--out", out)
        assert refused.code == 2, name
        assert "out must be a name that is not in use, received" in refused.err
        assert "--force" in refused.err
        mine = out / "saved_model.pb" if out.is_dir() else out
        assert mine.read_text() == "mine"
        replaced = pawtune(capsys, *command, "--out", out, "--force")
        assert replaced.code == 0, replaced.err
        assert mine.read_bytes() != b"mine"
    (tmp_path / "c.json").write_text("mine")  # would be written beside c.keras
    beside = pawtune(capsys, "best", folder.root, "--out", tmp_path / "c.keras")
    assert "'" + str(tmp_path / "c.json") + "'" in beside.err
    photos = tmp_path / "photos"
    photos.mkdir()
    kept = pawtune(
        capsys, "export", folder.root, "--format", "savedmodel", "--out", photos, "--force"
    )
    assert kept.code == 2  # no SavedModel: a folder of somebody's files is never replaced


def test_a_savedmodel_that_writes_files_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Writer(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])  # type: ignore[untyped-decorator]
        def serve(self, pixels: Any) -> Any:
            tf.io.write_file(str(tmp_path / "written"), "by the model")
            return tf.zeros((tf.shape(pixels)[0], 2))

    folder = tmp_path / "model"
    tf.saved_model.save(Writer(), str(folder))
    card = {"class_names": ["a", "b"], "spec": {"model": {"image_size": 32}}}
    (folder / "model_card.json").write_text(json.dumps(card))
    write_image(tmp_path / "a.png", 1)
    refused = pawtune(capsys, "predict", folder, tmp_path / "a.png")
    assert refused.code == 2
    assert "it holds the operation 'WriteFile'" in refused.err
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "coreml",
            "a.mlmodel",
            "format must be one of keras, savedmodel, onnx, tflite",
        ),
        ("tflite", "a.keras", r"out must end in \.tflite .* received '.*a\.keras'"),
        ("keras", "a.tflite", r"for example out a\.keras, or format tflite$"),
        ("savedmodel", "a.onnx", r"out must be a folder's name .* out a, or format onnx$"),
        ("tflite", "a.TFLITE", r"out must end in \.tflite .* for example out a\.tflite$"),
        ("keras", "a.KERAS", r"out must end in \.keras .* for example out a\.keras$"),
        ("savedmodel", "a.Keras", r"out must be a folder's name .* out a, or format keras$"),
        ("savedmodel", "", "out must be a name that is not in use, received the folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    folder: RunFolder, tmp_path: Path, kind: str, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Run(folder).export(tmp_path / name, kind)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("there", ["file", "folder", "link"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_written_takes_the_place_of_all_kinds(
    tmp_path: Path, there: str, kind: str
) -> None:
    (tmp_path / "old").mkdir()
    out, written = tmp_path / "out", tmp_path / "scratch" / "new"
    written.parent.mkdir()
    {"file": out.touch, "folder": out.mkdir, "link": lambda: out.symlink_to("old")}[there]()
    (written.touch if kind == "file" else written.mkdir)()
    move_into_place(written, out)
    assert out.is_file() if kind == "file" else out.is_dir()
    assert not out.is_symlink()
    assert (tmp_path / "old").is_dir()


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
    monkeypatch.setitem(MODULES, __name__, frozenset({"Forgetful"}))
    inputs = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 255)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(Forgetful(3.0)(pixels))
    run = Run(folder)
    chosen = choose_model(folder, run.rows())
    card = make_card(folder, run.rows(), chosen, run.manifest(), "val_accuracy")
    with pytest.raises(UserError, match=r"to within 0\.01, received a difference of .* not kept"):
        export_model(keras.Model(inputs, pooled), card, "keras", tmp_path / "new" / "b" / "a.keras")
    assert os.listdir(tmp_path) == []
