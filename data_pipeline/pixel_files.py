"""Decoded pixels on disk, for every search on the same images at the same size.

    <folder>/images.npy     (N, S, S, 3) uint8

The folder's name is a key of all that changes a value; it appears whole or not at all.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import features

from data_pipeline.errors import DataError

# Raise it when images are opened, turned, converted or resized differently.
CODE_VERSION = 1
ARRAY = "images.npy"


def pixels_key(hashes: Iterable[str], image_size: int) -> str:
    """32 hexadecimal digits that differ where any pixel might.

    Args:
        hashes: The images' content hashes in their order.
        image_size: In pixels.
    """
    parts = {
        "content": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "image_size": image_size,
        "code": CODE_VERSION,
        "libraries": {name: version(name) for name in ("pillow", "numpy")},
        "decoders": {name: features.version(name) for name in ("jpg", "webp", "zlib")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class PixelWriter:
    """Room on the disk for decoded images; without `finish` nothing is left.

    with PixelWriter(folder, num_images, image_size) as writer:
        writer.images[start : start + len(shard)] = shard
        images = writer.finish()

    Attributes:
        images: (N, S, S, 3) uint8, to be filled.
    """

    def __init__(self, folder: Path, num_images: int, image_size: int) -> None:
        """Takes the whole room at once: mapped memory without it would kill the process.

        Raises:
            OSError: There is no such room.
        """
        self._folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
        self._partial.mkdir()
        try:
            self.images: NDArray[np.uint8] = np.lib.format.open_memmap(
                self._partial / ARRAY, "w+", np.uint8, (num_images, image_size, image_size, 3)
            )
            _reserve(self._partial / ARRAY)
        except OSError:
            self._clear()
            raise

    def finish(self) -> NDArray[np.uint8]:
        """Makes the images appear, and opens them."""
        assert isinstance(self.images, np.memmap)
        shape = self.images.shape
        self.images.flush()
        del self.images
        try:
            os.replace(self._partial, self._folder)
        except OSError:
            # A folder cannot replace one with files in it: another search was faster, and the
            # key says that its pixels are the same.
            self._clear()
        return load_pixels(self._folder, shape[0], shape[1])

    def _clear(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes what was not finished."""
        self._clear()


def _reserve(file: Path) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with file.open("rb+") as stream:
        os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def load_pixels(folder: Path, num_images: int, image_size: int) -> NDArray[np.uint8]:
    """Opens decoded images, memory-mapped and read-only.

    Returns:
        (N, S, S, 3) uint8.

    Raises:
        DataError: They are not whole.
    """
    shape = (num_images, image_size, image_size, 3)
    try:
        images = np.load(folder / ARRAY, mmap_mode="r", allow_pickle=False)
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(f"{images.dtype} {images.shape} is not uint8 {shape}")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no whole decoded images ({error}): delete the folder, the next "
            "search decodes them again"
        ) from error
    return np.asarray(images)
