"""Class probabilities of image files: the one way that `test` and `predict` both take."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.images import decode_image, resize_bilinear

if TYPE_CHECKING:
    import keras

BATCH = 64
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".mpo"}
)
Probabilities = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Prediction:
    """One file: (C,) probabilities, or the reason why it has none."""

    path: str
    probabilities: Probabilities | None
    reason: str | None = None


def predict_files(
    model: "keras.Model", paths: Sequence[str | Path], image_size: int
) -> Iterator[Prediction]:
    """Streams predictions in the order of `paths`, a batch in memory at a time.

    Images are decoded and resized as in training, on threads, while the model runs.

    Args:
        model: A complete model.
        paths: Image files.
        image_size: Side in pixels that the model was trained at.
    """
    remaining = iter(paths)
    with ThreadPoolExecutor(max_workers=2) as threads:
        while batch := list(islice(remaining, BATCH)):
            decoded = list(threads.map(lambda path: _decode(path, image_size), batch))
            pixels = [item for item in decoded if isinstance(item, np.ndarray)]
            rows = iter(model.predict_on_batch(np.stack(pixels)) if pixels else ())
            for path, item in zip(batch, decoded, strict=True):
                if isinstance(item, np.ndarray):
                    yield Prediction(str(path), next(rows))
                else:
                    yield Prediction(str(path), None, item)


def _decode(path: str | Path, image_size: int) -> np.ndarray | str:
    try:
        return resize_bilinear(decode_image(Path(path)), image_size)
    except (DataError, OSError) as error:
        return str(error)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as given; folders searched for images at any depth, sorted.

    Raises:
        DataError: A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES
            )
            if not inside:
                raise DataError(
                    f"a folder to predict must hold images, got {str(path)!r} with none; "
                    "give the folder that holds the image files"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(
                f"IMAGE_OR_FOLDER must exist, got {str(path)!r}; check the path's spelling"
            )
    return found
