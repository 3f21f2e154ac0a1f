"""What novelty is measured against, as bytes and a record: in run folders and `.keras` files."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.models.features.novelty import Novelty, images_kept
from pawtune.search.storage.untrusted_files import is_number


def novelty_bytes(novelty: Novelty) -> bytes:
    """The array, as `np.save` writes it."""
    stream = io.BytesIO()
    np.save(stream, novelty.packed(), allow_pickle=False)
    return stream.getvalue()


def novelty_record(novelty: Novelty) -> dict[str, Any]:
    """The record beside it, as plain JSON values."""
    return {"images": len(novelty.units), "threshold": novelty.threshold}


def parse_novelty(
    content: Any, read: Callable[[tuple[int, int]], NDArray[np.float32]], width: int
) -> Novelty:
    """What was packed, by its record.

    Args:
        content: The record: `images` and `threshold`.
        read: Reads an array of the shape given.
        width: Number of features.

    Raises:
        ValueError: It is not what pawtune writes.
    """
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, int) or not 1 <= images <= images_kept(width):
        raise ValueError(f"a number of images of {images!r:.40}")
    threshold = content.get("threshold")
    if not is_number(threshold, 2) or threshold <= 0:
        raise ValueError(f"a threshold of {threshold!r:.40}")
    packed = read((images + 2, width))
    if not np.isfinite(packed).all() or packed[1].min() <= 0:
        raise ValueError("features that are no finite numbers")
    return Novelty.unpacked(packed, float(threshold))
