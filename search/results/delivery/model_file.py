"""An untrusted model file, checked before Keras opens it, so that loading runs no code.

Keras' own safe mode refuses Lambda layers and what else it knows to run code. This is stricter: of
a `.keras` file only what `pawtune best` writes is taken: four members of limited size, and layers
and operations from the list below, none of which holds code or opens a file.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.images.decode import GREY_BITS, RESIZINGS, Decoding
from pawtune.data_pipeline.safe_files import replacing, shown
from pawtune.models.features.novelty import Novelty
from pawtune.search.errors import UserError
from pawtune.search.process import load_tensorflow
from pawtune.search.results.delivery.inference import features_of
from pawtune.search.results.delivery.model_card import card_markdown
from pawtune.search.results.delivery.novelty_file import (
    novelty_bytes,
    novelty_record,
    parse_novelty,
)
from pawtune.search.results.delivery.out_files import card_files, parents_made, writing
from pawtune.search.storage.run_folder import write_json, write_text
from pawtune.search.storage.untrusted_files import parse_array

if TYPE_CHECKING:
    import keras

CARD_MEMBER = "pawtune.json"  # inside the .keras archive; Keras itself passes over it
NOVELTY_MEMBER = "novelty.npy"  # the same; not in every file
MAX_MEMBER_BYTES = {
    "metadata.json": 2**20,
    "config.json": 64 * 2**20,
    CARD_MEMBER: 16 * 2**20,
    NOVELTY_MEMBER: 32 * 2**20,
    "model.weights.h5": 4 * 2**30,
}
MAX_RATIO = 10  # weights hardly shrink
REMEDY = "make one with `pawtune best RUN --out best.keras`"

# By module, as Keras writes them: what pawtune's nets, heads and all backbones consist of.
LAYERS = """
    Activation Add Average AveragePooling2D BatchNormalization Concatenate Conv2D Cropping2D Dense
    DepthwiseConv2D Dropout Flatten GlobalAveragePooling2D GlobalMaxPooling2D InputLayer
    LayerNormalization MaxPooling2D Multiply Normalization ReLU Rescaling Reshape SeparableConv2D
    Softmax ZeroPadding2D
"""
NUMPY_OPS = """
    Absolute Add Any Cumsum ExpandDims Flip Greater LessEqual Log LogicalAnd Matmul Max Maximum
    Minimum Multiply NotEqual OnesLike Round Sqrt Subtract Sum Transpose TrueDivide Where ZerosLike
"""
MODULES = {
    "keras.layers": frozenset(LAYERS.split()),
    "keras": frozenset({"DTypePolicy", "Model", "Sequential"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.initializers": None,  # None: any
    "keras.regularizers": None,
    "keras.src.ops.core": frozenset({"Cast"}),
    "keras.src.ops.image": frozenset({"Resize"}),
    "keras.src.ops.numpy": frozenset(NUMPY_OPS.split()),
    "keras.src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
    "keras.src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
}
WITH_CODE = frozenset({"function", "__lambda__", "__numpy__", "__tensor__", "__typespec__"})


def open_model(model_file: Path) -> tuple["keras.Model", dict[str, Any]]:
    """A model file's model and card.

    Returns:
        (N, H, W, 3) uint8 → (N, C) probabilities; and its card, whose `class_names` are the C.

    Raises:
        UserError: The file is missing, is no model of pawtune's, or holds what could run code.
    """
    card, config = _read(model_file)
    _refuse_foreign_parts(model_file, config)
    load_tensorflow()
    import keras

    from pawtune.models.keras_settings import apply_settings

    apply_settings()
    try:
        model = keras.models.load_model(model_file, compile=False, safe_mode=True)
        classes, channels = model.output_shape[-1], model.input_shape[-1]
    except Exception as error:  # Keras, h5py and TensorFlow raise a dozen types for a bad file
        raise refused(model_file, f"its model cannot be loaded: {error}") from error
    if (channels, classes) != (3, len(card["class_names"])):
        text = f"{classes} outputs for {len(card['class_names'])} class names"
        raise refused(model_file, f"model and card do not fit: {channels} channels in, {text}")
    return model, card


def read_novelty(model_file: Path, model: "keras.Model", card: Mapping[str, Any]) -> Novelty | None:
    """The novelty reference in a model file; None where the file has none.

    Raises:
        UserError: It is not what pawtune writes.
    """
    features = features_of(model)
    if card.get("novelty") is None or features is None:
        return None
    try:
        with zipfile.ZipFile(model_file) as archive:
            packed = archive.read(NOVELTY_MEMBER)
        width = int(features.shape[-1])
        return parse_novelty(card["novelty"], lambda shape: parse_array(packed, shape), width)
    except Exception as error:  # zipfile raises as many types as there are ways to break a zip
        raise refused(model_file, f"its {NOVELTY_MEMBER}: {error}") from error


def save_complete(
    model: "keras.Model", card: dict[str, Any], out: Path, novelty: Novelty | None = None
) -> None:
    """Writes `out` (.keras) whole or not at all; its card inside it, and beside it twice.

    `best.keras` gets `best.json` and, for people, `best.md`. `novelty` goes inside too.

    Raises:
        UserError: `out` does not end in .keras, or cannot be written.
    """
    check_keras_target(out)
    if novelty is not None:
        card = {**card, "novelty": novelty_record(novelty)}
    with writing(out), parents_made(out):
        with replacing(out) as temporary:
            model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(CARD_MEMBER, json.dumps(card, allow_nan=False))
                if novelty is not None:
                    archive.writestr(NOVELTY_MEMBER, novelty_bytes(novelty))
        as_json, as_text = card_files(out)
        write_json(as_json, card)
        write_text(as_text, card_markdown(card))


def check_keras_target(out: Path) -> None:
    """Refuses a name that Keras would not write, before any work.

    Raises:
        UserError: It does not end in .keras.
    """
    if out.suffix != ".keras":
        raise UserError(
            f"--out must end in .keras, received {str(out)!r}; for example --out best.keras"
        )


def _read(model_file: Path) -> tuple[dict[str, Any], Any]:
    """Card and configuration, from an archive that holds what it should and no more."""
    try:
        if not model_file.is_file():  # a pipe would be waited for
            raise FileNotFoundError("no such file")
        with zipfile.ZipFile(model_file) as archive:
            _check_members(archive, model_file.stat().st_size)
            card = json.loads(archive.read(CARD_MEMBER))
            config = json.loads(archive.read("config.json"))
        check_card(card)
    except Exception as error:  # zipfile raises as many types as there are ways to break a zip
        raise refused(model_file, str(error) or type(error).__name__) from error
    return card, config


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    for info in archive.infolist():
        limit = MAX_MEMBER_BYTES.get(info.filename)
        if limit is None:
            raise ValueError(f"it holds {shown(info.filename)!r}, which no model of pawtune's has")
        if info.file_size > min(limit, MAX_RATIO * size + 2**20):
            raise ValueError(f"its {info.filename} says it unpacks to {info.file_size:,} bytes")
    names = [name for name in archive.namelist() if name != NOVELTY_MEMBER]
    needed = [name for name in MAX_MEMBER_BYTES if name != NOVELTY_MEMBER]
    if sorted(names) != sorted(needed):
        missing = [name for name in needed if name not in names]
        raise ValueError(f"it lacks {', '.join(missing)}" if missing else "it holds a member twice")


def check_card(card: Any) -> None:
    """Checks what predicting takes from a card.

    Raises:
        TypeError, KeyError, ValueError: It is not what pawtune writes.
    """
    names, size = card["class_names"], card["spec"]["model"]["image_size"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("its card's class_names must be a list of words")
    if size is not None and (not isinstance(size, int) or not 1 <= size <= 4096):
        raise ValueError(f"its card's image_size must be 1 to 4096 px, received {size!r:.40}")
    grey_bits, resizing = decoding_of(card)
    if grey_bits not in GREY_BITS:
        raise ValueError(f"its card's grey_bits must be one of {GREY_BITS}")
    if resizing not in RESIZINGS:
        raise ValueError(
            f"its card's resizing must be one of {RESIZINGS}, received {resizing!r:.40}"
        )


def decoding_of(card: Mapping[str, Any]) -> Decoding:
    """How files became pixels in training; early cards lack it where it was the default."""
    return Decoding(card.get("grey_bits", 16), card.get("resizing", "bilinear"))


def _refuse_foreign_parts(model_file: Path, config: Any) -> None:
    for part in _parts(config):
        module, name = part.get("module"), part.get("class_name")
        allowed = MODULES.get(str(module), frozenset())
        known = isinstance(name, str) and (allowed is None or name in allowed)
        if not known or name in WITH_CODE:
            raise refused(
                model_file,
                f"it holds {name!r:.60} of {module!r:.60}, which no model of pawtune's has; it "
                "may run code, so it was not loaded",
            )


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every object that Keras would build, at any depth, without recursion."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "class_name" in item and item["class_name"] != "__keras_tensor__":
                yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def refused(model_file: Path, reason: str) -> UserError:
    """Why a model is not taken, in one line."""
    said = shown(" ".join(reason.split()))[:400]
    return UserError(
        f"MODEL must be a file that `pawtune best` or `pawtune export` wrote, received "
        f"{shown(model_file)!r}: {said}; {REMEDY}"
    )
