"""Class probabilities of image files: the one way that `test` and `predict` both take."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import (
    DEFAULT_DECODING,
    Decoding,
    open_image,
    read_file,
    resize,
)
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_tree import (
    ENVIRONMENT,
    HIDDEN,
    LINK_CYCLE,
    OWN_OUTPUT,
    Found,
    may_be_image,
    walk_files,
)
from pawtune.models.features.novelty import Novelty

if TYPE_CHECKING:
    import keras

BATCH = 64
BATCH_OF_ORIGINALS = 4  # images of full size: 300 MB each, at worst
THREADS = 2
Probabilities = np.ndarray[tuple[int], np.dtype[np.float32]]
Pixels = NDArray[np.uint8]
Predict = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class Prediction:
    """One file: (C,) probabilities, or the reason why it has none."""

    path: str
    probabilities: Probabilities | None
    reason: str | None = None


@dataclass(frozen=True)
class FoundFile:
    """A file to predict. fault: why it is not even opened; else None."""

    path: str
    fault: str | None = None


def predictor(model: "keras.Model") -> Predict:
    """How a Keras model predicts."""
    return lambda pixels: np.asarray(model.predict_on_batch(pixels))


def features_of(model: "keras.Model") -> "keras.KerasTensor | None":
    """(N, D) what a complete model's dense layers at the end take; None where none is named."""
    named = [layer.output for layer in model.layers if layer.name == "features"]
    return named[0] if named and len(named[0].shape) == 2 else None


def novelty_predictor(model: "keras.Model", novelty: Novelty) -> Predict:
    """How a Keras model predicts with novelty: (N, C) probabilities, and a column of it."""
    import keras

    both = keras.Model(model.input, [model.output, features_of(model)])

    def predict(pixels: Pixels) -> NDArray[np.float32]:
        probabilities, features = both.predict_on_batch(pixels)
        return np.column_stack([probabilities, novelty.score(features)])

    return predict


def predict_files(
    predict: Predict,
    files: Iterable[str | Path | FoundFile],
    image_size: int | None,
    decoding: Decoding = DEFAULT_DECODING,
) -> Iterator[Prediction]:
    """Streams predictions in the order of `files`, two batches in memory at a time.

    Images are decoded and resized as in training, on threads, while the model runs.

    Args:
        predict: A complete model: (N, H, W, 3) uint8 to (N, C) probabilities.
        files: Image files.
        image_size: Side in pixels that the model was trained at; None leaves images as they are,
            for a model of several sizes, which resizes them itself.
        decoding: How files became pixels in training.
    """
    remaining = (f if isinstance(f, FoundFile) else FoundFile(os.fspath(f)) for f in files)
    size = BATCH if image_size else BATCH_OF_ORIGINALS

    def decode(found: FoundFile) -> Pixels | str:
        return found.fault or _decode(found.path, image_size, decoding)

    with ThreadPoolExecutor(THREADS) as threads:
        batch = list(islice(remaining, size))
        waiting = threads.map(decode, batch)
        while batch:
            done, pixels = batch, list(waiting)
            batch = list(islice(remaining, size))
            waiting = threads.map(decode, batch)
            yield from _predict_batch(predict, done, pixels)


def _decode(path: str, image_size: int | None, decoding: Decoding) -> Pixels | str:
    try:
        pixels = np.asarray(open_image(read_file(Path(path)), decoding.grey_bits))
        return resize(pixels, image_size, decoding.resizing) if image_size else pixels
    except DataError as error:
        return str(error)


def _predict_batch(
    predict: Predict, files: Sequence[FoundFile], decoded: Sequence[Pixels | str]
) -> Iterator[Prediction]:
    pixels = [item for item in decoded if not isinstance(item, str)]
    rows = iter(predict_pixels(predict, pixels) if pixels else ())
    for file, item in zip(files, decoded, strict=True):
        if isinstance(item, str):
            yield Prediction(file.path, None, item)
        else:
            yield Prediction(file.path, next(rows))


def predict_pixels(predict: Predict, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
    """(N, C) probabilities of (H, W, 3) images.

    Batches are filled up to a power of two: TensorFlow traces each size that it sees, and with a
    few unreadable files among many it would see dozens.
    """
    if len({image.shape for image in pixels}) > 1:
        return np.concatenate([predict_pixels(predict, [image]) for image in pixels])
    size = 1 << (len(pixels) - 1).bit_length()
    batch = np.zeros((size, *pixels[0].shape), np.uint8)
    batch[: len(pixels)] = pixels
    return predict(batch)[: len(pixels)]


def check_paths(paths: Sequence[Path]) -> None:
    """Sees to it that each can be gone through.

    Raises:
        DataError: One does not exist, or is a folder that holds nothing to label.
    """
    for path in paths:
        try:
            there = path.exists()
        except (OSError, ValueError):
            there = False
        if not there:
            raise DataError(
                f"IMAGE_OR_FOLDER must exist, received {shown(path)!r}; check the path's spelling"
            )
        if path.is_dir() and next(find_files([path]), None) is None:
            raise DataError(
                f"a folder to predict must hold images, received {shown(path)!r} with none; "
                "give the folder that holds the image files"
            )


def find_files(paths: Iterable[Path]) -> Iterator[FoundFile]:
    """Files as given; below folders every file that may be an image, sorted within each.

    What cannot be opened has its fault.
    """
    for path in paths:
        if path.is_dir():
            for found in walk_files(path):
                if not _is_no_image(path, found):
                    yield FoundFile(str(path / found.path), found.fault)
        else:
            yield FoundFile(str(path))


def count_passed_over(paths: Iterable[Path]) -> int:
    """How many items below folders `find_files` leaves out."""
    folders = [path for path in paths if path.is_dir()]
    return sum(_is_no_image(path, found) for path in folders for found in walk_files(path))


def _is_no_image(folder: Path, found: Found) -> bool:
    """Documents, hidden and system files, what pawtune wrote, cycles of links.

    A name alone makes no document: contents count, as in a search.
    """
    if found.fault is None:
        return not may_be_image(found.path) and not _holds_image(folder / found.path)
    return found.fault in (HIDDEN, OWN_OUTPUT, ENVIRONMENT, LINK_CYCLE)


def _holds_image(path: Path) -> bool:
    try:
        open_image(read_file(path))
    except DataError:
        return False
    return True
