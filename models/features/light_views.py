"""Light augmented views of training images, in rounds: one view of each image a round.

Round r of an image is always the same view, so features of rounds can be kept and shared: a trial
of four rounds uses the plain image (round 0) and rounds 1 to 4, and so does each other one. Light:
a mirror image half of the time, turned by up to 20°, zoomed by up to 15%, shifted by up to 8% of
the side. What goes further (the tutorial's 0.9 turns) is served by `augmented_views`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawtune.models.features.view_transforms import view_transforms

_NAMESPACE = 0x11657  # keeps these random numbers apart from all others of the same seed


@dataclass(frozen=True)
class LightAugmentation:
    """How far light views go. Raise `version` when views are drawn differently.

    Attributes:
        max_degrees: angles are uniform in ± this.
        max_zoom: sides are scaled by a factor uniform in 1 ± this.
        max_shift: uniform in ± this share of the side, across and down.
        mirrored: share of views that are mirror images.
    """

    max_degrees: float = 20.0
    max_zoom: float = 0.15
    max_shift: float = 0.08
    mirrored: float = 0.5
    version: int = 1


DEFAULT = LightAugmentation()


def round_transforms(
    round_number: int,
    start: int,
    stop: int,
    image_size: int,
    seed: int,
    augmentation: LightAugmentation = DEFAULT,
) -> NDArray[np.float32]:
    """The views of a round, as `render_views` takes them.

    Args:
        round_number: number of the round, from 1; round 0 is the plain images.
        start: first image.
        stop: behind the last one.
        image_size: side in pixels.
        seed: seed of all rounds.
        augmentation: how far views go.

    Returns:
        (stop - start, 1, 6) float32. An image's view depends on its place, the round and the
        seed, never on the shard it is in.
    """
    # One stream for a round, drawn up to `stop`: numbers of a prefix do not depend on its length.
    generator = np.random.default_rng((_NAMESPACE, seed, round_number))
    draws = generator.random((stop, 5))[start:]
    spread = 2 * draws - 1
    angles = (np.deg2rad(augmentation.max_degrees) * spread[:, 0]).astype(np.float32)
    mirrored = draws[:, 1] < augmentation.mirrored
    rotated = view_transforms(angles[:, None], mirrored[:, None], image_size)
    scale = 1 / (1 + augmentation.max_zoom * spread[:, 2])
    shift = augmentation.max_shift * image_size * spread[:, 3:5]
    return zoom_and_shift(rotated, scale, shift, image_size)


def zoom_and_shift(
    transforms: NDArray[np.float32],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    image_size: int,
) -> NDArray[np.float32]:
    """Views whose pixels are first zoomed about the middle and shifted, then taken as before.

    Args:
        transforms: (n, V, 6), see `view_transforms`.
        scale: (n,) step in the image from one pixel of the view to the next; below 1 zooms in.
        shift: (n, 2) pixels across and down.
        image_size: side in pixels.
    """
    middle = (image_size - 1) / 2
    a0, a1, a2, b0, b1, b2 = np.moveaxis(transforms.astype(np.float64), -1, 0)
    s = scale[:, None]
    # The view's (x, y) is read at (s (x - m) + m + dx, s (y - m) + m + dy) of the rotated image.
    across = middle * (1 - s) + shift[:, :1]
    down = middle * (1 - s) + shift[:, 1:]
    rows = [
        a0 * s, a1 * s, a0 * across + a1 * down + a2,
        b0 * s, b1 * s, b0 * across + b1 * down + b2,
    ]  # fmt: skip
    return np.stack(rows, axis=-1).astype(np.float32)
