"""Small pictures for reports and event files: thumbnails, grids, views under augmentation.

Only images whose content is still what the manifest recorded are shown.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import open_image, read_file, resize_bilinear
from pawtune.data_pipeline.splitting.manifest import ManifestEntry

Pixels = NDArray[np.uint8]
Flip = Literal["none", "horizontal", "horizontal_and_vertical"]
JPEG_QUALITY = 82
THUMBNAIL_PX = 144
GAP_PX = 4


def read_thumbnail(root: Path, entry: ManifestEntry, size: int = THUMBNAIL_PX) -> Pixels | None:
    """An image as a model sees it, a square of `size` px: (size, size, 3) uint8.

    Returns:
        None where the file is gone, or is not what it was.
    """
    try:
        data = read_file(root / entry.path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            return None
        picture = np.asarray(_shrink(open_image(data, entry.decoding.grey_bits), size))
    except DataError:
        return None
    return resize_bilinear(picture, size)


def _shrink(image: Image.Image, size: int) -> Image.Image:
    # Bilinear resizing alone would skip most pixels of a large photo, which looks jagged.
    factor = max(1, min(image.size) // size)
    return image.reduce(factor)


def encode_jpeg(pixels: Pixels) -> bytes:
    """(H, W, 3) uint8 as a JPEG file."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return target.getvalue()


def data_uri(pixels: Pixels) -> str:
    """(H, W, 3) uint8 as a `data:` address that a page can hold."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels)).decode("ascii")


def choose_samples(
    entries: Sequence[ManifestEntry], class_names: Sequence[str], per_class: int
) -> dict[str, list[ManifestEntry]]:
    """The first entries of each class; a split's order depends on content, as good as random."""
    return {
        name: [entry for entry in entries if entry.label == name][:per_class]
        for name in class_names
    }


def montage(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Pictures of one size in rows, with gaps between them: (H, W, 3) uint8."""
    size = rows[0][0].shape[0]
    columns = max(len(row) for row in rows)
    step = size + GAP_PX
    canvas = np.full((len(rows) * step - GAP_PX, columns * step - GAP_PX, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas[y * step : y * step + size, x * step : x * step + size] = picture
    return canvas


@dataclass(frozen=True)
class Change:
    """One way of augmenting an image.

    Attributes:
        flip: one of `horizontal`, `vertical`, `horizontal_and_vertical` and `none`.
        angle: rotation in radians, anticlockwise.
        size: side of the part that is seen, over the image's.
        shift: across and down, as parts of the side.
        brightness: added, as a part of 255.
        contrast: over the image's.
    """

    flip: str = "none"
    angle: float = 0.0
    size: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    brightness: float = 0.0
    contrast: float = 1.0


def augmented_views(
    picture: Pixels,
    count: int,
    *,
    flip: Flip = "none",
    rotation_factor: float = 0.0,
    zoom_factor: float = 0.0,
    shift_factor: float = 0.0,
    brightness_factor: float = 0.0,
    contrast_factor: float = 0.0,
) -> list[Pixels]:
    """A picture as a trial may see it in several epochs, the plain picture first.

    What `models.augmentation` draws and how it fills in from outside, here without loading
    TensorFlow into the process that drives the search.

    Args:
        picture: (S, S, 3) uint8.
        count: pictures.
        flip: one of the flips of a `Change`, each with probability one half.
        rotation_factor: angles are uniform in ±2π times it.
        zoom_factor: the part that is seen is 1 - it to 1 + it times the picture's size.
        shift_factor: largest shift along both axes, as a part of the picture's side.
        brightness_factor: largest change of brightness, as a part of 255.
        contrast_factor: contrasts of 1 - it to 1 + it.
    """
    rng = np.random.default_rng(0)
    views = [picture]
    while len(views) < count:
        flipped = flip if flip != "none" and rng.random() < 0.5 else "none"
        turn, zoom, across, down, light, contrast = rng.uniform(-1, 1, 6)
        change = Change(
            flip=flipped,
            angle=2 * np.pi * rotation_factor * turn,
            size=1 + zoom_factor * zoom,
            shift=(shift_factor * across, shift_factor * down),
            brightness=brightness_factor * light,
            contrast=1 + contrast_factor * contrast,
        )
        views.append(changed(picture, change))
    return views


def changed(picture: Pixels, change: Change) -> Pixels:
    """A picture, (S, S, 3) uint8, under one change: as `models.augmentation` makes it."""
    if "horizontal" in change.flip:
        picture = picture[:, ::-1]
    if "vertical" in change.flip:
        picture = picture[::-1]
    if (change.angle, change.size, *change.shift) != (0.0, 1.0, 0.0, 0.0):
        picture = _frame(picture, change.angle, change.size, change.shift)
    if (change.brightness, change.contrast) == (0.0, 1.0):
        return picture
    bright = np.clip(picture + 255 * change.brightness, 0, 255)
    mean = bright.mean(axis=(0, 1))
    view = mean + (bright - mean) * change.contrast
    return np.asarray(view.clip(0, 255).round(), np.uint8)


def _frame(picture: Pixels, angle: float, size: float, shifts: tuple[float, float]) -> Pixels:
    """A part of a picture: turned by radians, `size` times its side, shifted by parts of it."""
    side = picture.shape[0]
    margin = side  # of the picture reflected: no view reaches further, or hardly
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    # Pillow counts from the corner of a pixel, not from its middle.
    cosine, sine, middle = size * np.cos(angle), size * np.sin(angle), side / 2
    across = margin + middle * (1 - cosine + sine) + side * shifts[0]
    down = margin + middle * (1 - sine - cosine) + side * shifts[1]
    seen = Image.fromarray(padded).transform(
        (side, side),
        Image.Transform.AFFINE,
        (cosine, -sine, across, sine, cosine, down),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(seen)
