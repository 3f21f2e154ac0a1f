"""Decoded pixels on disk, for every search on the same images at the same size.

    <folder>/images.npy     (N, S, S, 3) uint8

The folder's name is a key of all that changes a value; it appears whole or not at all.
"""

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.formats import decoder_versions
from pawtune.data_pipeline.safe_files import reserve

# Raise it when images are opened, turned, converted or resized differently.
CODE_VERSION = 1
ARRAY = "images.npy"


def pixels_key(hashes: Iterable[str], image_size: int) -> str:
    """32 hexadecimal digits that differ where any pixel might.

    Args:
        hashes: Hashes of what the pixels depend on, in order: see ManifestEntry.pixels_key.
        image_size: Side in pixels.
    """
    parts = {
        "content": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "image_size": image_size,
        "code": CODE_VERSION,
        "libraries": {name: version(name) for name in ("pillow", "numpy")},
        "decoders": decoder_versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class PixelMemory:
    """Decoded images in memory, where there is no room on the disk."""

    def __init__(self, num_images: int, image_size: int) -> None:
        """Room for (N, S, S, 3) uint8."""
        self._images = np.empty((num_images, image_size, image_size, 3), np.uint8)

    def write(self, start: int, shard: NDArray[np.uint8]) -> None:
        """Puts in images `start` and following."""
        self._images[start : start + len(shard)] = shard

    def finish(self) -> NDArray[np.uint8]:
        """All of them."""
        return self._images


class PixelWriter:
    """Writes decoded images to the disk, while others are decoded; without `finish` none are left.

    with closing(PixelWriter(folder, num_images, image_size)) as writer:
        writer.write(start, shard)
        images = writer.finish()
    """

    def __init__(self, folder: Path, num_images: int, image_size: int) -> None:
        """Takes the whole room at once.

        Raises:
            OSError: There is no such room.
        """
        self._folder = folder
        self._shape = (num_images, image_size, image_size, 3)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
        self._partial.mkdir()
        try:
            self._file = (self._partial / ARRAY).open("w+b")
            try:
                self._begin()
            except BaseException:
                self._file.close()
                raise
        except OSError:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise
        # Written to the disk as they come, pixels keep nobody waiting at the end.
        self._disk = ThreadPoolExecutor(max_workers=1)
        self._on_disk: Future[None] = self._disk.submit(lambda: None)

    def _begin(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._start = self._file.tell()
        reserve(self._partial / ARRAY, self._start + math.prod(self._shape))

    def write(self, start: int, shard: NDArray[np.uint8]) -> None:
        """Puts in images `start` and following."""
        self._file.seek(self._start + start * math.prod(self._shape[1:]))
        self._file.write(np.ascontiguousarray(shard).data)
        if self._on_disk.done():
            self._on_disk.result()  # raises what writing to the disk raised
            self._on_disk = self._disk.submit(os.fsync, self._file.fileno())

    def finish(self) -> NDArray[np.uint8]:
        """Makes the images appear in the cache, and opens them.

        Raises:
            OSError: They could not be written.
        """
        self._file.flush()
        self._on_disk.result()
        os.fsync(self._file.fileno())
        images = np.memmap(self._file, np.uint8, "r", self._start, self._shape)
        # Where it is there another search was faster, and the key says that its pixels are the
        # same: a folder cannot replace one with files in it. Or somebody cleared the cache.
        with suppress(OSError):
            os.replace(self._partial, self._folder)
        return np.asarray(images)

    def close(self) -> None:
        """Removes what was not finished."""
        self._disk.shutdown()
        self._file.close()
        shutil.rmtree(self._partial, ignore_errors=True)


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
