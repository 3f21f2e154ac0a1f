"""Writes a model in other formats, each checked against the Keras model before it is kept."""

import importlib
import importlib.util
import json
import shutil
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pawtune.search.errors import UserError
from pawtune.search.results.delivery.model_card import card_markdown
from pawtune.search.results.delivery.model_file import CARD_MEMBER, save_complete
from pawtune.search.results.delivery.opened import (
    CARD_PROPERTY,
    LABELS_MEMBER,
    OpenedModel,
    open_keras,
    open_onnx,
    open_savedmodel,
    open_tflite,
)
from pawtune.search.results.delivery.out_files import (
    card_files,
    move_into_place,
    parents_made,
    refuse_existing,
)
from pawtune.search.storage.run_folder import write_json, write_text

if TYPE_CHECKING:
    import keras

# How far a probability may be off. TFLite resizes with other arithmetic, so a pixel half-way
# between two whole values may be rounded the other way: up to 0.002 on noise that is enlarged, 4e-6
# without (both measured on MobileNetV2). A wrong weight or preprocessing shows far above.
TOLERANCE = 0.01
SIDES = ((64, 64), (45, 61))  # images of the check, where any size must do
SUFFIX = {"keras": ".keras", "savedmodel": "", "onnx": ".onnx", "tflite": ".tflite"}
NEEDS = {"onnx": ("onnx", "onnxruntime", "tf2onnx")}  # the extra of the same name
OPEN = {
    "keras": open_keras,
    "savedmodel": open_savedmodel,
    "onnx": open_onnx,
    "tflite": open_tflite,
}


@dataclass(frozen=True)
class Exported:
    """A model file that answers as the Keras model does.

    Attributes:
        path: The file; a folder for a SavedModel.
        max_difference: Largest difference of a probability from the Keras model's, on the images
            of the check.
        input_shape: Shape that the model takes; a None in it: any number.
    """

    path: Path
    max_difference: float
    input_shape: tuple[int | None, ...]


def check_target(kind: str, out: Path, *, dynamic: bool = False, force: bool = False) -> None:
    """What can be refused before any model is built.

    Raises:
        UserError: Unknown format, wrong suffix, a path in use without `force`, or a library is
            missing.
    """
    if kind not in SUFFIX:
        raise UserError(f"--format must be one of {', '.join(SUFFIX)}, received {kind!r}")
    if dynamic and kind != "tflite":
        raise UserError(
            f"--dynamic is for --format tflite, received {kind}, whose models take any number of "
            "images of any size; leave it out"
        )
    ending = out.suffix.lower()
    named = next((name for name, suffix in SUFFIX.items() if suffix and suffix == ending), None)
    if SUFFIX[kind] and out.suffix != SUFFIX[kind]:  # Keras reads no .KERAS
        other = f", or --format {named}" if named not in (None, kind) else ""
        raise UserError(
            f"--out must end in {SUFFIX[kind]} for --format {kind}, received {str(out)!r}; "
            f"for example --out {out.stem or 'best'}{SUFFIX[kind]}{other}"
        )
    if kind == "savedmodel" and named:
        raise UserError(
            f"--out must be a folder's name for --format savedmodel, received {str(out)!r}; for "
            f"example --out {out.stem}, or --format {named}"
        )
    beside = card_files(out) if SUFFIX[kind] else ()
    refuse_existing([out], force, beside)
    missing = [name for name in NEEDS.get(kind, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {kind} needs {' and '.join(missing)}, not installed here; type "
            f"pip install 'pawtune[{kind}]', or export to savedmodel or tflite"
        )


def export_model(
    model: "keras.Model",
    card: dict[str, Any],
    kind: str,
    out: Path,
    *,
    dynamic: bool = False,
    force: bool = False,
) -> Exported:
    """Writes `out` whole or not at all, with its card.

    Args:
        model: A complete model, (N, H, W, 3) pixels to (N, C).
        card: Goes into the file, and beside it for people.
        kind: One of `SUFFIX`.
        out: File, or folder of a SavedModel, to write.
        dynamic: A TFLite file for any number of images of any size, rather than for one image of
            the side that the model was trained at.
        force: Replace what is there.

    Raises:
        UserError: See `check_target`; or the written model answers otherwise; or `out` cannot be
            written.
    """
    check_target(kind, out, dynamic=dynamic, force=force)
    side = None if kind != "tflite" or dynamic else _trained_side(card)
    shape = (None, None, None, 3) if side is None else (1, side, side, 3)
    try:
        with parents_made(out):
            scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.stem}."))
            try:
                written = scratch / f"model{SUFFIX[kind]}"
                _write(model, card, kind, written, shape)
                difference = _compare(model, OPEN[kind](written), kind, side)
                _place(written, card, kind, out)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"--out must be a place that can be written, received {str(out)!r}: {error}"
        ) from error
    return Exported(out, difference, shape)


def _trained_side(card: dict[str, Any]) -> int:
    """The side that a model was trained at, in pixels; of an ensemble, its members' largest."""
    members = card["spec"].get("members", [card["spec"]])
    return max(int(member["model"]["image_size"]) for member in members)


def _write(
    model: "keras.Model", card: dict[str, Any], kind: str, path: Path, shape: tuple[int | None, ...]
) -> None:
    if kind == "keras":
        save_complete(model, card, path)
        return
    import keras

    pixels = [keras.InputSpec(dtype="uint8", shape=shape, name="raw_pixels")]
    if kind == "onnx":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Keras' check for NumPy's old `object`
            model.export(path, format="onnx", verbose=False, input_signature=pixels)
        onnx = importlib.import_module("onnx")  # by name: an optional library
        graph = onnx.load(path)
        onnx.helper.set_model_props(graph, {CARD_PROPERTY: json.dumps(card, allow_nan=False)})
        onnx.save(graph, path)
        return
    if kind == "savedmodel":
        _write_savedmodel(model, path, shape)
        write_json(path / "model_card.json", card)
        return
    folder = path.with_name("savedmodel")
    model.export(folder, format="tf_saved_model", verbose=False, input_signature=pixels)
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    with zipfile.ZipFile(path, "a") as archive:  # appended, as TFLite's metadata does
        archive.writestr(LABELS_MEMBER, "\n".join(card["class_names"]) + "\n")
        archive.writestr(CARD_MEMBER, json.dumps(card, allow_nan=False))


def _write_savedmodel(model: "keras.Model", path: Path, shape: tuple[int | None, ...]) -> None:
    """A SavedModel whose `serve` takes numbers of any NumPy type as the Keras model does.

    Of bytes alone, TensorFlow would cut an array of floats from 0 to 1 down to black, silently. The
    signature for servers, `serving_default`, takes bytes.
    """
    import keras
    import tensorflow as tf

    # The first that fits is taken: a list of Python's numbers is float32.
    *others, bytes_ = (
        tf.TensorSpec(shape, dtype, name="raw_pixels")
        for dtype in ("float32", "float64", "int32", "int64", "uint8")
    )

    def answer(raw_pixels: Any) -> Any:
        return model(raw_pixels, training=False)

    serve = tf.function(answer, autograph=False)
    for spec in (*others, bytes_):
        serve.get_concrete_function(spec)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", answer, input_signature=[bytes_])
    archive.add_endpoint("serve", serve)
    archive.write_out(path, verbose=False)


def _compare(model: "keras.Model", written: OpenedModel, kind: str, side: int | None) -> float:
    """The largest difference of a probability, on coarse blobs and on noise, of several sizes
    where the written model takes any, used as `pawtune predict` uses it."""
    rng = np.random.default_rng(0)
    largest = 0.0
    for height, width in SIDES if side is None else ((side, side),):
        pixels = _check_images(rng, height, width)
        expected = np.asarray(model.predict_on_batch(pixels))
        found = written.predict(pixels)
        if found.shape != expected.shape:
            raise UserError(
                f"the {kind} model must answer in shape {expected.shape}, received {found.shape}; "
                "it was not kept: choose another --format"
            )
        largest = max(largest, float(np.abs(found - expected).max()))
    if not largest <= TOLERANCE:
        raise UserError(
            f"the {kind} model must give the Keras model's probabilities to within {TOLERANCE}, "
            f"received a difference of {largest:.4g}; it was not kept: choose another --format"
        )
    return largest


def _check_images(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """(4, height, width, 3): two of noise, two of blobs."""
    noise = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    coarse = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    blobs = coarse.repeat(height // 4 + 1, axis=1).repeat(width // 4 + 1, axis=2)
    return np.concatenate([noise, blobs[:, :height, :width]])


def _place(written: Path, card: dict[str, Any], kind: str, out: Path) -> None:
    as_json, as_text = card_files(written if kind == "savedmodel" else out)
    write_json(as_json, card)
    write_text(as_text, card_markdown(card))
    move_into_place(written, out)
