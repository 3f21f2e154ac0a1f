"""Feature banks on disk: a folder of plain arrays under a key of all that changes a value.

    folder/average.npy   (N, V, F) float16      folder/maximum.npy   the same shape
    folder/angles.npy    (N, V) float32         folder/bank.json     rings, shape, description

A bank is written under a temporary name, shard by shard, and appears whole or not at all. It is
read memory-mapped: trials of a machine share its pages, and an epoch reads one view an image.
Plain numpy: whether a bank exists is asked before TensorFlow is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from pawtune.models.errors import ModelError
from pawtune.models.features.augmented_views import Ring, ViewTable

# Raise it when views are planned, drawn, rendered or encoded differently.
CODE_VERSION = 2

_DESCRIPTION = "bank.json"
_ARRAYS = ("average", "maximum", "angles")
_LIBRARIES = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Shard:
    """Features of a contiguous slice of images.

    Attributes:
        average: (n, V, F) float16, averaged over the places of the feature map.
        maximum: (n, V, F) float16, their maximum.
    """

    average: NDArray[np.float16]
    maximum: NDArray[np.float16]


@dataclass(frozen=True)
class FeatureBank:
    """Features of all views of a set of images.

    Attributes:
        average: (N, V, F) float16, features averaged over the places of the feature map.
        maximum: (N, V, F) float16, their maximum.
        table: the views.
    """

    average: NDArray[np.float16]
    maximum: NDArray[np.float16]
    table: ViewTable

    def features(self, pooling: Literal["average", "max"]) -> NDArray[np.float16]:
        """(N, V, F) under a head's pooling; `[:, 0]` are those of the plain images."""
        return self.average if pooling == "average" else self.maximum


def bank_key(
    *,
    content: str,
    image_size: int,
    backbone: str,
    weights: str,
    policy: str,
    num_views: int,
    seed: int,
    device: str,
) -> str:
    """Name of a bank: 32 hexadecimal digits that differ where any value might.

    Args:
        content: fingerprint of the images, in their order.
        image_size: in pixels.
        backbone: its name in `keras.applications`.
        weights: hash of the backbone's weights, `file_hash(path)`.
        policy: the dtype policy computed under, as resolved.
        num_views: views of an image.
        seed: of the angles.
        device: that computes it. On a GPU float32 is TF32 in convolutions (10 bits of mantissa
            instead of 23, from Ampere on), and other policies add up in another order.
    """
    parts = {
        "content": content,
        "image_size": image_size,
        "backbone": backbone,
        "weights": weights,
        "policy": policy,
        "num_views": num_views,
        "seed": seed,
        "device": device,
        "code": CODE_VERSION,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def content_fingerprint(hashes: Iterable[str]) -> str:
    """One hash of the images' content hashes in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class BankWriter:
    """Writes a bank shard by shard; without `finish` nothing is left.

    with BankWriter(folder, table, feature_width) as writer:
        for start, shard in shards:
            writer.write(start, shard)
        bank = writer.finish()
    """

    def __init__(self, folder: Path, table: ViewTable, feature_width: int) -> None:
        """Reserve the space under a temporary name beside the folder."""
        self.folder = folder
        self._table = table
        self._written = np.zeros(table.num_images, bool)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
        self._partial.mkdir()
        shape = (*table.angles.shape, feature_width)
        self._features = {
            name: np.lib.format.open_memmap(
                self._partial / f"{name}.npy", mode="w+", dtype=np.float16, shape=shape
            )
            for name in ("average", "maximum")
        }
        try:
            for name in self._features:
                _reserve(self._partial / f"{name}.npy")
        except OSError:
            self._features.clear()
            shutil.rmtree(self._partial, ignore_errors=True)
            raise
        np.save(self._partial / "angles.npy", table.angles)
        description = {"shape": shape, "rings": [asdict(ring) for ring in table.rings]}
        (self._partial / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")

    def write(self, start: int, shard: Shard) -> None:
        """Put in the features of images `start` and following."""
        rows = slice(start, start + len(shard.average))
        self._features["average"][rows] = shard.average
        self._features["maximum"][rows] = shard.maximum
        self._written[rows] = True

    def finish(self) -> FeatureBank:
        """Make the bank appear, and open it.

        Raises:
            ModelError: shards are missing.
        """
        if not self._written.all():
            raise ModelError(
                f"a bank needs the features of all its {len(self._written)} images, received "
                f"{self._written.sum()}: write the missing shards first"
            )
        for array in self._features.values():
            array.flush()
            array.flags.writeable = False
        # Open already: whoever clears the cache at this moment takes nothing from this search.
        bank = FeatureBank(**self._features, table=self._table)
        self._features.clear()
        # Where it is there another search was faster, and the key says that its bank is the same.
        with suppress(OSError):
            os.replace(self._partial, self.folder)
        return bank

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove what was not finished."""
        self._features.clear()
        shutil.rmtree(self._partial, ignore_errors=True)


def _reserve(file: Path) -> None:
    """Takes a file's whole space on the disk now: mapped memory without it kills the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with file.open("rb+") as stream:
        os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def load_bank(folder: Path) -> FeatureBank:
    """Open a bank, memory-mapped and read-only.

    Raises:
        ModelError: there is no whole bank.
    """
    try:
        description = json.loads((folder / _DESCRIPTION).read_text())
        average, maximum, angles = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
        )
        rings = tuple(Ring(**ring) for ring in description["rings"])
        shape = tuple(description["shape"])
        if not average.shape == maximum.shape == shape or angles.shape != shape[:2]:
            raise ValueError(f"{average.shape} and {maximum.shape} are not {shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no whole feature bank ({error}): delete the folder, the next "
            "search builds the bank again"
        ) from error
    return FeatureBank(average, maximum, ViewTable(np.asarray(angles), rings))
