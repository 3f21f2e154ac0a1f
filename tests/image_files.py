"""Tiny image files for the tests of data_pipeline."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import open_image, read_file


def picture(seed: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: smooth random blobs, so that every seed has its own hash."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def write_image(path: Path, seed: int, *, quality: int | None = None) -> Path:
    """Writes picture(seed) to path (PNG, or JPEG of the quality given), making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture(seed))
    if quality is None:
        image.save(path, "PNG")
    else:
        image.save(path, "JPEG", quality=quality)
    return path


def write_classes(root: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    """Writes root/<label>/<number>.png for every label; no two pictures are alike."""
    seed = first_seed
    for label, count in counts.items():
        for number in range(count):
            write_image(root / label / f"{number}.png", seed)
            seed += 1
    return root


def decode_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: a file as it is decoded for training, at full resolution."""
    try:
        return np.asarray(open_image(read_file(path)))
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error
