"""The built-in sample: photo-like pictures of two coats, tabby (stripes) and dalmatian (spots).

Each picture shows fur on a rounded body before a blurred background, under a lamp of random place
and tint, through a camera of random sharpness and noise. Everything but the pattern is drawn from
the same distributions for both coats, and the pattern covers the same share of the body, so that
the mean colour says nothing: a model has to look at shapes.

The two patterns are made to be close: stripes waver and break up into dashes, spots run together
and are drawn out, and both come in the same range of sizes.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pawtune.data_pipeline.progress import Progress, silent

COATS = ("dalmatian", "tabby")
PER_CLASS: Mapping[str, int] = {"train": 300, "validation": 100, "test": 100}
SIZE_PX = 160
# Raise it with any change of the pictures: unpacked samples are cached by it.
VERSION = 3
POSE_DEVIATION = 0.4  # radians

Plane = NDArray[np.float32]

FUR_COLOURS = np.array(
    [
        (226, 220, 210),
        (206, 184, 150),
        (178, 116, 66),
        (116, 82, 58),
        (134, 130, 126),
        (84, 78, 74),
        (46, 40, 38),
    ],
    np.float32,
)
BACKGROUND_COLOURS = np.array(
    [
        (92, 118, 74),
        (150, 134, 108),
        (104, 112, 128),
        (172, 166, 156),
        (86, 66, 52),
        (126, 92, 84),
        (70, 76, 72),
    ],
    np.float32,
)


def make_sample(
    folder: Path,
    seed: int = 0,
    *,
    per_class: Mapping[str, int] = PER_CLASS,
    size_px: int = SIZE_PX,
    progress: Progress | None = None,
) -> Path:
    """Writes folder/<split>/<coat>/<coat>_0000.jpg and so on; about 10 ms a picture.

    Args:
        folder: where to; made if missing.
        seed: the same seed gives the same files, also where `per_class` is larger.
        per_class: pictures of each coat by split.
        size_px: side of a picture.
        progress: called with ("sample", pictures done, pictures in all).

    Returns:
        The folder.
    """
    progress = progress or silent
    total, done = sum(per_class.values()) * len(COATS), 0
    for split_number, (split, count) in enumerate(per_class.items()):
        for coat_number, coat in enumerate(COATS):
            (folder / split / coat).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng((seed, split_number, coat_number, number))
                picture = Image.fromarray(draw_coat(coat, rng, size_px))
                quality = int(rng.integers(72, 96))
                picture.save(folder / split / coat / f"{coat}_{number:04d}.jpg", quality=quality)
                done += 1
                progress("sample", done, total)
    return folder


def draw_coat(coat: str, rng: np.random.Generator, size_px: int = SIZE_PX) -> NDArray[np.uint8]:
    """One picture: (size_px, size_px, 3) uint8."""
    x, y = _turned_grid(rng, size_px)
    x_radius, y_radius = rng.uniform(1.0, 1.8), rng.uniform(1.0, 1.8)
    u = (x - rng.uniform(-0.45, 0.45)) / x_radius
    v = (y - rng.uniform(-0.45, 0.45)) / y_radius
    outline = u * u + v * v + 0.10 * _noise(rng, size_px, 4)
    body = _step(1 - outline, 0.05)
    bulge = np.sqrt(np.clip(1 - outline, 0.0, 1.0))

    hairs = _hairs(rng, size_px)
    # The skin bends away at the sides of the body: the pattern is foreshortened there.
    along = x_radius * np.arcsin(np.clip(u, -1, 1)) + 0.012 * hairs
    across = y_radius * np.arcsin(np.clip(v, -1, 1)) + 0.012 * hairs
    pattern = (_stripes if coat == "tabby" else _spots)(rng, along, across)
    mark = _cover(rng, pattern, body)

    coat_colour, mark_colour = _two_fur_colours(rng)
    fur = coat_colour + (mark_colour - coat_colour) * mark[:, :, None]
    fur *= (1 + rng.uniform(0.06, 0.14) * hairs)[:, :, None]
    fur *= _light(rng, u, v, bulge)[:, :, None]
    picture = _background(rng, size_px)
    picture += (fur - picture) * body[:, :, None]
    return _photograph(rng, picture)


def _turned_grid(rng: np.random.Generator, size_px: int) -> tuple[Plane, Plane]:
    """Coordinates from -1 to 1 across the picture, turned by the pose: (S, S) each.

    Animals stand upright more often than not. With any pose equally likely, 600 pictures were too
    few: a net of three blocks stayed at 60% after ten epochs.
    """
    line = np.linspace(-1, 1, size_px, dtype=np.float32)
    angle = rng.normal(0, POSE_DEVIATION)
    x = math.cos(angle) * line[None, :] + math.sin(angle) * line[:, None]
    y = math.cos(angle) * line[:, None] - math.sin(angle) * line[None, :]
    return x.astype(np.float32), y.astype(np.float32)


def _noise(rng: np.random.Generator, size_px: int, cells: int) -> Plane:
    """Smooth noise with about `cells` waves across the picture: (S, S), mean 0, deviation 1."""
    coarse = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
    smooth = Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC)
    plane = np.asarray(smooth)
    return np.asarray((plane - plane.mean()) / (plane.std() + 1e-6), np.float32)


def _step(plane: Plane, width: float) -> Plane:
    """0 below -width, 1 above width, smooth between."""
    part = np.clip(plane / (2 * width) + 0.5, 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def _hairs(rng: np.random.Generator, size_px: int) -> Plane:
    """Strands of hair: white noise smeared along a slowly turning direction, deviation 1.

    Line integral convolution (Cabral and Leedom, SIGGRAPH 1993) with a straight line per pixel.
    """
    white = rng.standard_normal(size_px * size_px, dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi) + 0.7 * _noise(rng, size_px, 2)
    down, right = np.sin(angle), np.cos(angle)
    own = np.arange(size_px * size_px, dtype=np.int32).reshape(size_px, size_px)
    strands = white[own]
    for step in range(1, int(rng.integers(5, 9))):
        away = (np.rint(step * down) * size_px + np.rint(step * right)).astype(np.int32)
        strands += white.take(own + away, mode="wrap")
        strands += white.take(own - away, mode="wrap")
    return np.asarray(strands / strands.std(), np.float32)


def _warped(
    rng: np.random.Generator, along: Plane, across: Plane, strength: float
) -> tuple[Plane, Plane]:
    size_px = len(along)
    cells = int(rng.integers(3, 6))
    return (
        along + np.float32(strength) * _noise(rng, size_px, cells),
        across + np.float32(strength) * _noise(rng, size_px, cells),
    )


def _stripes(rng: np.random.Generator, along: Plane, across: Plane) -> Plane:
    """Bands of uneven width that waver, fork and break up into dashes: (S, S)."""
    period = rng.uniform(0.15, 0.32)
    along, across = _warped(rng, along, across, rng.uniform(0.15, 0.35) * period)
    waves = np.sin(2 * np.pi * along / period + rng.uniform(0, 2 * np.pi))
    gaps = np.sin(
        2 * np.pi * across / (period * rng.uniform(2.0, 3.5)) + 2.5 * _noise(rng, len(along), 5)
    )
    return np.asarray(waves + rng.uniform(0.2, 0.6) * gaps, np.float32)


def _spots(rng: np.random.Generator, along: Plane, across: Plane) -> Plane:
    """Blots of uneven size, somewhat drawn out, one to a cell of a jittered grid: (S, S)."""
    period = rng.uniform(0.15, 0.32)
    along, across = _warped(rng, along, across, rng.uniform(0.05, 0.15) * period)
    stretch = math.sqrt(rng.uniform(1.0, 2.0))
    x, y = along / (period * stretch), across / (period / stretch)
    # Of the cells around a point only the four nearest can hold a spot that covers it.
    left, top = np.floor(x - 0.5).astype(np.int32), np.floor(y - 0.5).astype(np.int32)
    x_in_cell, y_in_cell, radius = (
        rng.uniform(low, high, 64 * 64).astype(np.float32)
        for low, high in ((0.15, 0.85), (0.15, 0.85), (0.0, 0.45))
    )
    nearest = np.full(along.shape, -np.inf, np.float32)
    for row in (top, top + 1):
        for column in (left, left + 1):
            cell = (row % 64) * 64 + column % 64
            x_away = x - column.astype(np.float32) - x_in_cell[cell]
            y_away = y - row.astype(np.float32) - y_in_cell[cell]
            np.maximum(nearest, radius[cell] - np.sqrt(x_away**2 + y_away**2), out=nearest)
    return nearest


def _cover(rng: np.random.Generator, pattern: Plane, body: Plane) -> Plane:
    """Marks where the pattern is strongest, the same share of the body for either coat: (S, S)."""
    share = rng.uniform(0.25, 0.45)
    inside = pattern[body > 0.5]
    low, threshold, high = np.quantile(inside, (0.05, 1 - share, 0.95))
    return _step(pattern - np.float32(threshold), rng.uniform(0.03, 0.10) * float(high - low))


def _two_fur_colours(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Coat and mark, (3,) each; the mark is darker by enough to be seen."""
    while True:
        coat, mark = FUR_COLOURS[rng.choice(len(FUR_COLOURS), 2, replace=False)]
        coat, mark = (
            colour * rng.uniform(0.85, 1.1) * rng.uniform(0.97, 1.03, 3) for colour in (coat, mark)
        )
        contrast = rng.uniform(0.6, 1.0)
        mark = coat + (mark - coat) * contrast
        if float((coat - mark).mean()) > 42:
            return coat.astype(np.float32), mark.astype(np.float32)


def _light(rng: np.random.Generator, u: Plane, v: Plane, bulge: Plane) -> Plane:
    """Brightness of the skin under one lamp and a bright room, with folds: (S, S)."""
    folds = _noise(rng, len(u), 3)
    slope_y, slope_x = np.gradient(folds * rng.uniform(1.0, 4.0))
    right, down, near = rng.normal(0, 0.6), rng.normal(0, 0.6), rng.uniform(0.6, 1.2)
    facing = right * (u + slope_x) + down * (v + slope_y) + near * bulge
    facing /= math.hypot(right, down, near)
    room = rng.uniform(0.40, 0.65)
    return np.asarray(room + (1.15 - room) * np.clip(facing, 0, 1), np.float32)


def _background(rng: np.random.Generator, size_px: int) -> Plane:
    """A floor, a lawn or a wall out of focus: (S, S, 3)."""
    first, second = BACKGROUND_COLOURS[rng.choice(len(BACKGROUND_COLOURS), 2, replace=False)]
    blend = _step(_noise(rng, size_px, int(rng.integers(1, 5))), rng.uniform(0.5, 2.0))
    picture = first + (second - first) * blend[:, :, None]
    return np.asarray(picture * rng.uniform(0.6, 1.15), np.float32)


def _photograph(rng: np.random.Generator, picture: Plane) -> NDArray[np.uint8]:
    """White balance, exposure, lens and sensor: (S, S, 3) -> uint8."""
    size_px = len(picture)
    warmth, green = rng.uniform(-0.08, 0.08), rng.uniform(-0.02, 0.02)
    tint = np.array((1 + warmth, 1 + green, 1 - warmth), np.float32)
    picture = picture * tint * rng.uniform(0.8, 1.2)
    line = np.linspace(-1, 1, size_px, dtype=np.float32)
    vignette = rng.uniform(0, 0.18) * (line[None, :] ** 2 + line[:, None] ** 2)
    picture *= 1 - vignette[:, :, None]
    sharp = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.1))), np.float32)
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(2, 7))
    return np.clip(blurred + grain, 0, 255).astype(np.uint8)
