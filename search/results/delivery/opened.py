"""Delivered models, also untrusted ones, opened: `.keras`, TFLite, ONNX, SavedModel.

Each holds its card, so the file alone suffices. Nothing that a model from somebody else holds is
run before it is known to be arithmetic: no custom layer, no TensorFlow operation inside TFLite, no
file operation in a SavedModel.
"""

import importlib
import json
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.images.decode import Decoding
from pawtune.data_pipeline.safe_files import read_regular, shown
from pawtune.search.errors import UserError
from pawtune.search.process import load_tensorflow
from pawtune.search.results.delivery.graph_check import check_functions
from pawtune.search.results.delivery.inference import (
    Pixels,
    Predict,
    novelty_predictor,
    predictor,
)
from pawtune.search.results.delivery.model_file import (
    CARD_MEMBER,
    check_card,
    decoding_of,
    open_model,
    read_novelty,
    refused,
)

LABELS_MEMBER = "labels.txt"  # in a TFLite file's archive, where its tools look for labels
CARD_PROPERTY = "pawtune_card"  # in an ONNX file's metadata
MAX_BYTES = 4 * 2**30
FORMATS = (".keras", ".tflite", ".onnx")


@dataclass(frozen=True)
class OpenedModel:
    """A model ready to predict.

    Attributes:
        predict: (N, H, W, 3) uint8 to (N, C) float32 probabilities.
        class_names: The C labels.
        image_size: Side in pixels to resize images to; None: it takes any size itself.
        decoding: How files became pixels in training.
        predict_novelty: The same with a column more: novelty, above 1 for images farther from the
            training images than 95% of the validation images; None: it is not known.
        set_threshold: Least probability of a label in a label set; None: no sets are asked for.
    """

    predict: Predict
    class_names: tuple[str, ...]
    image_size: int | None
    decoding: Decoding = Decoding()
    set_threshold: float | None = None
    predict_novelty: Predict | None = None


def is_model_path(path: Path) -> bool:
    """Whether a path names a model file, or a SavedModel's folder, rather than a run."""
    return path.suffix.lower() in FORMATS or (path / "saved_model.pb").is_file()


def open_delivered(path: Path) -> OpenedModel:
    """Opens what `pawtune best` and `pawtune export` write.

    Raises:
        UserError: It is missing, is no model of pawtune's, or holds what could run code.
    """
    ending = path.suffix.lower()
    if ending == ".keras" and path.suffix != ending and path.is_file():
        raise UserError(
            f"a Keras file must end in .keras, in small letters, received {shown(path)!r}; "
            "rename it"
        )
    if ending == ".keras" or not path.exists():
        return open_keras(path)
    if not is_model_path(path):
        raise refused(path, "no .keras, .tflite or .onnx file, nor a SavedModel's folder")
    open_as = {".tflite": open_tflite, ".onnx": open_onnx}.get(ending, open_savedmodel)
    try:
        return open_as(path)
    except UserError:
        raise
    except Exception as error:  # each library raises a dozen types for a file that is not its own
        raise refused(path, str(error) or type(error).__name__) from error


def open_keras(path: Path) -> OpenedModel:
    """A `.keras` file."""
    model, card = open_model(path)
    opened = _opened(predictor(model), card)
    novelty = read_novelty(path, model, card)
    if novelty is None:
        return opened
    return replace(opened, predict_novelty=novelty_predictor(model, novelty))


def open_savedmodel(path: Path) -> OpenedModel:
    """A SavedModel's folder."""
    card = json.loads(read_regular(path / "model_card.json", 64 * 2**20))
    check_functions(read_regular(path / "saved_model.pb", MAX_BYTES))
    load_tensorflow()
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    return _opened(lambda pixels: np.asarray(loaded.serve(tf.constant(pixels))), card)


def open_onnx(path: Path) -> OpenedModel:
    """An ONNX file, with onnxruntime from the extra `onnx`."""
    try:
        runtime = importlib.import_module("onnxruntime")  # by name: an optional library
    except ImportError:
        raise UserError(
            "an .onnx model needs onnxruntime, not installed here; type pip install 'pawtune[onnx]'"
        ) from None
    content = read_regular(path, MAX_BYTES)  # from memory, it can name no other file
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map[CARD_PROPERTY])
    name = session.get_inputs()[0].name
    return _opened(lambda pixels: np.asarray(session.run(None, {name: pixels})[0]), card)


def open_tflite(path: Path) -> OpenedModel:
    """A TFLite file: of one size and one image at a time, or with `--dynamic` of any."""
    content = read_regular(path, MAX_BYTES)
    with zipfile.ZipFile(path) as archive:
        card = json.loads(archive.read(CARD_MEMBER))
        graph = content[: min(info.header_offset for info in archive.infolist())]
    if b"Flex" in graph:  # so TFLite names TensorFlow's own operations, which may touch files
        raise ValueError("it holds TensorFlow operations, which no model of pawtune's has")
    load_tensorflow()
    import tensorflow as tf

    with warnings.catch_warnings():
        # TensorFlow announces that its interpreter will move to another package.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    is_dynamic = -1 in source["shape_signature"]

    def run(pixels: Pixels) -> NDArray[np.float32]:
        if is_dynamic:
            interpreter.resize_tensor_input(source["index"], pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], pixels)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(target["index"]))

    if is_dynamic:
        return _opened(run, card)
    return _opened(
        lambda pixels: np.concatenate([run(image[None]) for image in pixels]),
        card,
        int(source["shape"][1]),
    )


def _opened(predict: Predict, card: Any, image_size: int | None = None) -> OpenedModel:
    check_card(card)
    size = image_size or card["spec"]["model"]["image_size"]
    return OpenedModel(predict, tuple(card["class_names"]), size, decoding_of(card))
