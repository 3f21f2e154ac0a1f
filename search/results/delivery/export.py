"""Writes a model in other formats, each checked against the Keras model before it is kept."""

import importlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pawtune.search.errors import UserError
from pawtune.search.results.delivery.model_card import card_markdown
from pawtune.search.results.delivery.model_file import save_complete
from pawtune.search.storage.run_folder import write_json, write_text

if TYPE_CHECKING:
    import keras

# Of a probability. TFLite resizes with other arithmetic, so a pixel half-way between two whole
# values may be rounded the other way: up to 0.002 on noise that is enlarged, 4e-6 without (both
# measured on MobileNetV2). A wrong weight or preprocessing shows far above.
TOLERANCE = 0.01
SIDES = ((64, 64), (45, 61))  # of the images it is checked with: any size must do
SUFFIX = {"keras": ".keras", "savedmodel": "", "onnx": ".onnx", "tflite": ".tflite"}
NEEDS = {"onnx": ("onnx", "onnxruntime", "tf2onnx")}  # the extra of the same name

Pixels = NDArray[np.uint8]
Predict = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """A model file that answers as the Keras model does.

    Attributes:
        path: The file; a folder for a SavedModel.
        max_difference: Of any probability from the Keras model's, on the images of the check.
    """

    path: Path
    max_difference: float


def check_target(kind: str, out: Path) -> None:
    """What can be refused before any model is built.

    Raises:
        UserError: Unknown format, wrong suffix, path in use, or a library is missing.
    """
    if kind not in SUFFIX:
        raise UserError(f"--format must be one of {', '.join(SUFFIX)}, got {kind!r}")
    if out.suffix != SUFFIX[kind] and SUFFIX[kind]:
        raise UserError(
            f"--out must end in {SUFFIX[kind]} for --format {kind}, got {str(out)!r}; "
            f"for example --out {out.stem or 'best'}{SUFFIX[kind]}"
        )
    if kind == "savedmodel" and out.exists():
        raise UserError(
            f"--out must be a folder that is not there yet, got {str(out)!r}; choose another"
        )
    missing = [name for name in NEEDS.get(kind, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {kind} needs {' and '.join(missing)}, not installed here; type "
            f"pip install 'pawtune[{kind}]', or export to savedmodel or tflite"
        )


def export_model(model: "keras.Model", card: dict[str, Any], kind: str, out: Path) -> Exported:
    """Writes `out` whole or not at all, with its card.

    Args:
        model: A complete model, (N, H, W, 3) uint8 to (N, C).
        card: Goes beside the file; into the folder of a SavedModel.
        kind: One of `SUFFIX`.
        out: Where to.

    Raises:
        UserError: See `check_target`; or the written model answers otherwise; or `out` cannot be
            written.
    """
    check_target(kind, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.stem}."))
        try:
            written = scratch / f"model{SUFFIX[kind]}"
            predict = _write(model, card, kind, written)
            difference = _compare(model, predict, kind)
            _place(written, card, kind, out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"--out must be a place that can be written, got {str(out)!r}: {error}"
        ) from error
    return Exported(out, difference)


def _write(model: "keras.Model", card: dict[str, Any], kind: str, path: Path) -> Predict:
    """Writes the model and returns how the written one predicts."""
    if kind == "keras":
        save_complete(model, card, path)
        return _keras_predict(path)
    if kind == "onnx":
        _write_onnx(model, path)
        return _onnx_predict(path)
    folder = path if kind == "savedmodel" else path.with_name("savedmodel")
    model.export(folder, format="tf_saved_model", verbose=False)
    if kind == "savedmodel":
        return _savedmodel_predict(folder)
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return _tflite_predict(path)


def _write_onnx(model: "keras.Model", path: Path) -> None:
    import keras

    # Keras takes the signature from a call of the model, and a composed one has had none.
    pixels = keras.InputSpec(dtype="uint8", shape=(None, None, None, 3), name="raw_pixels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras' check for NumPy's old `object`
        model.export(path, format="onnx", verbose=False, input_signature=[pixels])


def _keras_predict(path: Path) -> Predict:
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    return lambda pixels: np.asarray(model.predict_on_batch(pixels))


def _savedmodel_predict(path: Path) -> Predict:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda pixels: np.asarray(loaded.serve(tf.constant(pixels)))


def _onnx_predict(path: Path) -> Predict:
    # By name: an optional library, which the packages must not depend on.
    session = importlib.import_module("onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def _tflite_predict(path: Path) -> Predict:
    import tensorflow as tf

    with warnings.catch_warnings():
        # TensorFlow announces that its interpreter will move to another package.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(model_path=str(path))
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def predict(pixels: Pixels) -> NDArray[np.float32]:
        interpreter.resize_tensor_input(source, pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, pixels)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(target))

    return predict


def _compare(model: "keras.Model", predict: Predict, kind: str) -> float:
    """The largest difference of a probability, on coarse blobs and on noise of several sizes."""
    rng = np.random.default_rng(0)
    largest = 0.0
    for height, width in SIDES:
        noise = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        coarse = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
        blobs = coarse.repeat(height // 4 + 1, axis=1).repeat(width // 4 + 1, axis=2)
        pixels = np.concatenate([noise, blobs[:, :height, :width]])
        expected = np.asarray(model.predict_on_batch(pixels))
        found = predict(pixels)
        if found.shape != expected.shape:
            raise UserError(
                f"the {kind} model must answer in shape {expected.shape}, got {found.shape}; "
                "it was not kept: choose another --format"
            )
        largest = max(largest, float(np.abs(found - expected).max()))
    if not largest <= TOLERANCE:
        raise UserError(
            f"the {kind} model must give the Keras model's probabilities to within {TOLERANCE}, "
            f"got a difference of {largest:.4g}; it was not kept: choose another --format"
        )
    return largest


def _place(written: Path, card: dict[str, Any], kind: str, out: Path) -> None:
    inside = kind == "savedmodel"
    beside = written / "model_card.json" if inside else out.with_suffix(".json")
    write_json(beside, card)
    write_text(beside.with_suffix(".md"), card_markdown(card))
    os.replace(written, out)
