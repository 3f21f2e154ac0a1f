"""Where the pixels of a view are taken from: a mirror image, rotated. Plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def view_transforms(
    angles: NDArray[np.float32], mirrored: NDArray[np.bool_], image_size: int
) -> NDArray[np.float32]:
    """Where each pixel of a view is taken from: a mirror image, rotated.

    Args:
        angles: (..., V) radians, counter-clockwise as in Keras' `RandomRotation`.
        mirrored: broadcastable to (..., V); left and right are swapped before rotating.
        image_size: side of the square images in pixels.

    Returns:
        (..., V, 6) float32: a0, a1, a2, b0, b1, b2; the pixel (x, y) of the view is the
        image's at (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    cosine = np.cos(angles.astype(np.float64))
    sine = np.sin(angles.astype(np.float64))
    last = image_size - 1
    middle = last / 2
    rows = np.stack(
        [
            cosine,
            -sine,
            middle * (1 - cosine + sine),
            sine,
            cosine,
            middle * (1 - sine - cosine),
        ],
        axis=-1,
    )
    # Reading the mirror image at x is reading the image at `last` - x.
    swapped = np.array([0, 0, last, 0, 0, 0]) + rows * [-1, -1, -1, 1, 1, 1]
    return np.where(np.asarray(mirrored)[..., None], swapped, rows).astype(np.float32)
